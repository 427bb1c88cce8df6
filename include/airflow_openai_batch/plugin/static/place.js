// What is open and filtered, kept in the address: pages can be linked, reloaded and left by the back button.

const { useEffect, useState } = globalThis.React;

/**
 * The query of the address, and a function that changes some of it.
 *
 * The browser's history is used as it is, since Airflow 3.1 does not share its router; Airflow's own entries stay
 * intact, because each entry keeps its state.
 */
export function usePlace() {
  const [query, setQuery] = useState(location.search);
  useEffect(() => {
    const follow = () => setQuery(location.search);
    addEventListener("popstate", follow);
    return () => removeEventListener("popstate", follow);
  }, []);

  function go(changes) {
    const params = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(changes)) {
      if (value) params.set(name, value);
      else params.delete(name);
    }
    const search = `${params}` && `?${params}`;
    if (search !== location.search) history.pushState(history.state, "", location.pathname + search);
    setQuery(location.search);
  }

  return [new URLSearchParams(query), go];
}

const IDENTITY = ["dag_id", "run_id", "task_id", "map_index"];

/** What a job is asked for by. */
export const identify = (job) => Object.fromEntries(IDENTITY.map((name) => [name, job[name]]));

/** A job as one text for the address, and back. */
export const toKey = (job) => IDENTITY.map((name) => encodeURIComponent(job[name])).join("/");

export function fromKey(key) {
  const values = key.split("/").map(decodeURIComponent);
  return Object.fromEntries(IDENTITY.map((name, at) => [name, values[at]]));
}
