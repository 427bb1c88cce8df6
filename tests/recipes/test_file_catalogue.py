"""A library's catalogue in a file: whatever kind of table, with columns of its own names."""

from __future__ import annotations

from pathlib import Path

import pytest

from airflow_openai_batch.access.givers import Giver
from airflow_openai_batch.errors import ConfigError
from airflow_openai_batch.recipes.cds.cd_covers import Cover
from airflow_openai_batch.recipes.cds.file_catalogue import FileCatalogue

SAMPLE = Path(__file__).resolve().parents[2] / "include" / "samples" / "cd_covers" / "catalogue.jsonl"
EXPORT = """Signatur;Titel;Interpret;Jahr;Verlag
UB1;Samba da Chuva;Os Navegantes;1971;Mar Azul
UB2;Winterreise;Schubert;(P) 1961;
;Without a number;Nobody;1970;
UB4;With; a semicolon;Nobody;1970;
"""
COLUMNS = {"id": "Signatur", "title": "Titel", "artist": "Interpret", "year": "Jahr", "label": "Verlag"}


def read(path: Path, columns: dict[str, str]) -> FileCatalogue:
    return FileCatalogue.read(str(path), Giver.CODE, columns)


def test_records_are_found_by_a_word_of_title_or_artist() -> None:
    found = dict(read(SAMPLE, {}).search(Cover(title="Granary", artist="Lanterns, The Paper")))
    assert found["lib-00019"].title == "Live at the Granary"
    assert found["lib-00019"].year == 1996


def test_an_export_has_its_own_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "export.csv").write_text(EXPORT)
    catalogue = read(tmp_path / "export.csv", COLUMNS)
    assert list(catalogue.search(Cover(title="Samba"))) == [
        ("UB1", Cover(title="Samba da Chuva", artist="Os Navegantes", year=1971, label="Mar Azul"))
    ]
    ((_, second),) = catalogue.search(Cover(artist="Schubert"))
    assert (second.year, second.label) == (1961, None)
    assert "2 records left out. record 3: has no id; record 4: " in caplog.text
    assert "has no column catalogue_number; nothing is known of these" in caplog.text


def test_columns_of_other_names_are_told(tmp_path: Path) -> None:
    (tmp_path / "export.csv").write_text(EXPORT)
    with pytest.raises(
        ConfigError, match=r"has no column id and title .* there are .*Signatur.*CATALOGUE_COLUMNS"
    ):
        read(tmp_path / "export.csv", {})
