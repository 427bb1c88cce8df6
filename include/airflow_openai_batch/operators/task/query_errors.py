"""Which of a database's errors come again with the same query, and which pass.

Every driver has classes of its own with the names of PEP 249, and these say too little: SQLite and MySQL raise
``OperationalError`` for a missing column as well as for a lost connection. So a code decides where a driver hands one
on, and the class elsewhere.
"""

from __future__ import annotations

_PASSING_STATES = frozenset({"08", "40", "53", "55", "57", "58", "70", "XX"})
"""Classes of SQLSTATE: connection, deadlock, resources, locks, shutdown or cancelled, system, interrupted, internal."""
_PASSING_MYSQL = frozenset(
    {
        *(1040, 1042, 1043, 1053, 1129, 1152, 1154, 1158, 1159, 1160, 1161, 1184, 1203, 1226),  # connection
        *(1205, 1206, 1213, 1614),  # locks
        *(1021, 1037, 1038, 1041, 1105, 1135),  # disk, memory, threads, unknown
        *(1317, 1927, 1969, 3024),  # ended by a person or a time limit
    }
)
_MYSQL_CLIENT = range(2000, 3000)
"""Codes of the client's library: the way to the server."""
_PASSING_SQLITE = frozenset({5, 6, 7, 9, 10, 13, 14, 15})
"""Busy, locked, memory, interrupted, disk, full, cannot open, protocol."""
_LASTING_CLASSES = frozenset({"ProgrammingError", "DataError", "IntegrityError", "NotSupportedError"})


def comes_again(error: Exception) -> bool:
    """Whether the same query would meet it again: it is the query that has to change, or what its user may do."""
    names = {kind.__name__ for kind in type(error).__mro__}
    if "MySQLError" in names or type(error).__module__.partition(".")[0] == "mysql":
        code = getattr(error, "errno", None) or (error.args[0] if error.args else None)
        return isinstance(code, int) and code > 0 and code not in _PASSING_MYSQL and code not in _MYSQL_CLIENT
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state:
        return state[:2] not in _PASSING_STATES
    if (code := getattr(error, "sqlite_errorcode", None)) is not None:
        return code & 0xFF not in _PASSING_SQLITE  # the upper bits say more of the same
    return isinstance(error, TypeError | ValueError | LookupError) or bool(names & _LASTING_CLASSES)
