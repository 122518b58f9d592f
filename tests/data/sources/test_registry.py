from __future__ import annotations

import gzip

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bike_pipeline.data.sources.registry import read_source
from bike_pipeline.errors import DataError, MissingExtraError, StorageError
from tests.data.making import serving, to_csv
from tests.data.sources.reading import ACCEPTED, GOOD, ROWS, read


@pytest.fixture
def memory():
    file_system = fsspec.filesystem("memory")
    file_system.makedirs("/uploads", exist_ok=True)
    yield file_system
    file_system.rm("/uploads", recursive=True)


def test_a_file_is_described_with_its_hash(tmp_path):
    (tmp_path / "a.csv").write_bytes(GOOD)
    accepted, description = read(tmp_path / "a.csv")
    assert accepted.equals(ACCEPTED)
    assert description.kind == "file"
    assert description.location == str(tmp_path / "a.csv")
    assert [file.size for file in description.files] == [len(GOOD)]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.gz", "a.csv", "upload"])
def test_gzip_is_known_by_its_content(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(GOOD))
    assert read(tmp_path / name)[0].equals(ACCEPTED)


def test_parquet_is_read_with_its_own_types(tmp_path):
    pq.write_table(ACCEPTED.append_column("station", [["x"] * ACCEPTED.num_rows]), tmp_path / "a.parquet")
    accepted, description = read(tmp_path / "a.parquet")
    assert accepted.equals(ACCEPTED)
    assert description.ignored_columns == ("station",)


def test_categories_of_pandas_are_read_as_their_values(tmp_path):
    table = ACCEPTED
    for name in ("season", "hr"):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].dictionary_encode())
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet")[0].equals(ACCEPTED)


def test_a_parquet_file_without_rows_or_columns_is_one_clear_error(tmp_path):
    pq.write_table(ACCEPTED.slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="columns and no rows"):
        read(tmp_path / "empty.parquet")
    pq.write_table(ACCEPTED.drop_columns(["hum"]), tmp_path / "less.parquet")
    with pytest.raises(DataError, match="column hum missing"):
        read(tmp_path / "less.parquet")


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path):
    for number in range(12):
        part = to_csv(ROWS[number * 8 : number * 8 + 8])
        compressed = number % 2
        name = f"part-{number}.csv" + (".gz" if compressed else "")
        (tmp_path / name).write_bytes(gzip.compress(part) if compressed else part)
    (tmp_path / "notes.txt").write_text("not rows")
    (tmp_path / ".part-3.csv.swp").write_text("not rows")
    (tmp_path / ".hidden.csv").write_text("not rows")
    (tmp_path / "below.csv").mkdir()
    accepted, description = read(tmp_path)
    assert accepted.equals(ACCEPTED)
    assert [file.name for file in description.files][:3] == ["part-0.csv", "part-1.csv.gz", "part-2.csv"]
    assert description.kind == "folder"


def test_an_error_in_a_folder_names_the_file(tmp_path):
    (tmp_path / "a.csv").write_bytes(GOOD)
    (tmp_path / "b.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.csv: it is empty"):
        read(tmp_path)


def test_a_folder_of_csv_and_parquet_files_is_read_as_one(tmp_path):
    (tmp_path / "a-1.csv").write_bytes(to_csv(ROWS[:48]))
    # A gap turns a column of pandas into floats, and a flag may be a truth value.
    part = ACCEPTED.slice(48, 24)
    as_float = part["hr"].cast(pa.float64())
    part = part.set_column(part.schema.get_field_index("hr"), "hr", as_float)
    part = part.set_column(part.schema.get_field_index("holiday"), "holiday", part["holiday"].cast(pa.bool_()))
    part = part.set_column(1, "dteday", part["dteday"].cast(pa.timestamp("ns")))
    pq.write_table(part, tmp_path / "a-2.parquet")
    pq.write_table(ACCEPTED.slice(72), tmp_path / "a-10.PARQUET")
    accepted, description = read(tmp_path)
    assert accepted.equals(ACCEPTED)
    assert [file.name for file in description.files] == ["a-1.csv", "a-2.parquet", "a-10.PARQUET"]


def test_a_folder_of_types_that_do_not_go_together_is_one_clear_error(tmp_path):
    (tmp_path / "a.csv").write_bytes(GOOD)
    lists = pa.array([[1]] * ACCEPTED.num_rows)
    table = ACCEPTED.set_column(ACCEPTED.schema.get_field_index("hum"), "hum", lists)
    pq.write_table(table, tmp_path / "b.parquet")
    with pytest.raises(DataError, match="under different types"):
        read(tmp_path)


def test_what_is_not_read_of_a_folder_is_named(tmp_path, memory):
    folder = tmp_path / "uploads"
    (folder / "older").mkdir(parents=True)
    (folder / "older" / "a.csv").write_bytes(GOOD)
    for name in ("a.CSV", "b.csv.bz2", "_SUCCESS", ".a.csv.swp"):
        (folder / name).write_bytes(GOOD)
        memory.pipe_file(f"/uploads/{name}", GOOD)
    memory.pipe_file("/uploads/older/a.csv", GOOD)
    for source in (folder, "memory://uploads"):
        accepted, _ = read(source)
        assert accepted.equals(ACCEPTED)
        assert sorted(read_source(str(source))[0].skipped) == ["b.csv.bz2", "older/"]


def test_columns_laid_out_as_folders_are_told_and_not_passed_over(tmp_path, memory):
    pq.write_to_dataset(ACCEPTED, tmp_path / "hive", partition_cols=["yr", "mnth"])
    (tmp_path / "hive" / "rest.csv").write_bytes(GOOD)
    memory.pipe_file("/uploads/yr=0/a.csv", GOOD)
    for source in (tmp_path / "hive", "memory://uploads"):
        with pytest.raises(DataError, match=r"columns are laid out as folders \(yr=0\)") as error:
            read(source)
        assert "every column in each" in error.value.fix


def test_a_folder_without_a_file_to_read_says_what_it_holds(tmp_path):
    (tmp_path / "rides.xlsx").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds no \.csv, .* file; it holds rides\.xlsx"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "empty text"),
        ("absent.csv", "no such file or folder"),
        ("nothing://bucket/a.csv", "nothing reads addresses of this kind"),
        ("http:///a.csv", "not an http address"),
        ("memory://nowhere/a.csv", "no such file"),
        ("postgresql://user:secret@host/rides", "a database needs a query"),
        ("sqlite:///absent.db?query=SELECT+1", "no such database file"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_clear_error(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        read(source)
    assert "secret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_and_an_unreadable_path_are_clear_errors(tmp_path):
    with pytest.raises(DataError, match=r"the folder holds no \.csv"):
        read(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="no such file or folder"):
        read(tmp_path / "file" / "a.csv")


def test_a_file_that_the_system_does_not_let_read_is_one_clear_error(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_bytes(GOOD)

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(StorageError, match="cannot read it: permission denied"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("body", [GOOD, gzip.compress(GOOD)], ids=["plain", "gzip"])
def test_an_http_address_is_read_and_its_secrets_stay_out_of_the_description(body):
    requests = []
    with serving({"/rides.csv": (200, {}, body)}, requests) as address:
        host = address.removeprefix("http://")
        accepted, description = read(f"http://anna:s3cret%21@{host}/rides.csv?token=s3cret#s3cret")
    assert accepted.equals(ACCEPTED)
    assert description.location == f"{address}/rides.csv"
    assert "s3cret" not in repr(description)
    assert requests[0]["Authorization"] == "Basic YW5uYTpzM2NyZXQh"


def test_credentials_do_not_follow_a_redirect():
    requests = []
    with (
        serving({"/rides.csv": (200, {}, GOOD)}, requests) as other,
        serving({"/old.csv": (302, {"Location": f"{other}/rides.csv"}, b"")}) as address,
    ):
        assert read(f"http://anna:s3cret@{address.removeprefix('http://')}/old.csv")[0].equals(ACCEPTED)
    assert "Authorization" not in requests[0]


@pytest.mark.parametrize(("status", "fix"), [(401, "user and password"), (404, "Check the address"), (500, "later")])
def test_an_http_error_is_one_clear_error(status, fix):
    with (
        serving({"/rides.csv": (status, {}, b"")}) as address,
        pytest.raises(DataError, match=f"answers {status}.*{fix}") as caught,
    ):
        read(f"http://anna:s3cret@{address.removeprefix('http://')}/rides.csv?token=s3cret")
    assert "s3cret" not in str(caught.value)


def test_object_storage_is_read_as_a_file_or_as_a_folder(memory, tmp_path):
    memory.pipe_file("/uploads/part-10.csv", to_csv(ROWS[48:]))
    memory.pipe_file("/uploads/part-9.csv.gz", gzip.compress(to_csv(ROWS[:48])))
    memory.pipe_file("/uploads/readme.md", b"not rows")
    accepted, description = read("memory://uploads")
    assert accepted.equals(ACCEPTED)
    assert (description.kind, description.location) == ("object_storage", "memory://uploads")
    assert [file.name for file in description.files] == ["part-9.csv.gz", "part-10.csv"]
    assert read("memory://uploads/part-10.csv")[0].num_rows == 48
    (tmp_path / "a.csv").write_bytes(GOOD)
    assert read(f"file://{tmp_path}/a.csv")[0].equals(ACCEPTED)


def test_a_storage_that_fails_is_one_clear_error(memory, monkeypatch):
    memory.pipe_file("/uploads/a.csv", GOOD)

    def fail(self, path, **options):
        raise RuntimeError("token expired")

    monkeypatch.setattr(type(memory), "cat_file", fail)
    with pytest.raises(DataError, match="token expired"):
        read("memory://uploads/a.csv")


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_object_storage_without_its_package_says_what_to_install(monkeypatch, scheme, package):
    def absent(url, **options):
        raise ImportError(f"Install {package} to access it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", absent)
    with pytest.raises(MissingExtraError, match=f"pip install {package}") as caught:
        read(f"{scheme}://key:secret@bucket/a.csv")
    assert "secret" not in str(caught.value)
