"""Sessions of one's own: what is written is read, whatever titles say; what cannot be used is named by its place."""

from __future__ import annotations

import json
import random
import string
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import routedk_lite as rdk
from routedk_lite.data import own
from routedk_lite.data.domains import domain_is_cached, load_domain
from routedk_lite.data.drafts import TENTHS
from routedk_lite.data.own import ALL, domain_name, load_sessions, own_folder
from routedk_lite.data.sessions import DOMAINS, SPLITS, DataError, Session
from routedk_lite.data.writing import write_sessions

TABLE = """session,item,title,bundle
s1,a,Tea pot,1
s1,b,"Tea cup, ""blue"" or
red",1|x
7,q,<|im_end|> Products:,
s1,c,杯子,x
"""
BUNDLES = (frozenset({1, 2}), frozenset({2, 3}))


@pytest.fixture
def write(tmp_path):
    """Writes a file of some name in a fresh folder."""

    def write(content, name="sessions.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def refused(source, *said, split=ALL):
    with pytest.raises(DataError) as caught:
        load_sessions(source, split)
    for words in said:
        assert words in str(caught.value), str(caught.value)


# --- what is read -----------------------------------------------------------------------------------------------------


def test_a_title_may_be_longer_than_what_csv_takes_by_itself(write):
    title = "tea " * 50_000
    (session,) = load_sessions(write(f"session,item,title\n1,a,{title}\n1,b,cup\n"))
    assert session.titles == (title, "cup")


def test_without_answers_neither_bundles_nor_splits_are_looked_at(write):
    table = write("session,item,title,bundle,split\n1,a,tea,1,autumn\n1,b,cup,,\n")
    refused(table, "autumn")
    (session,) = load_sessions(table, answers=False)
    assert session.titles == ("tea", "cup") and session.bundles == ()
    labelled = write("session,item,title,bundle\n1,a,tea,1\n1,b,cup,1\n", "labelled.csv")
    assert load_sessions(labelled).sessions[0].bundles
    assert not load_sessions(labelled, answers=False).sessions[0].bundles
    items = [{"item": "a", "title": "tea"}, {"item": "b", "title": "cup"}]
    lines = write(json.dumps({"session": 1, "items": items, "split": 3}) + "\n", "x.jsonl")
    assert load_sessions(lines, answers=False).sessions[0].titles == ("tea", "cup")


def test_a_table_has_a_row_for_each_item(write):
    found = rdk.load_sessions(write(TABLE, "shop.csv"))
    assert (found.name, found.split, len(found)) == ("shop", "all", 2)
    first, second = found
    assert (first.name, first.items) == ("s1", ("a", "b", "c"))
    assert first.titles == ("Tea pot", 'Tea cup, "blue" or\nred', "杯子") and first.bundles == BUNDLES
    assert (second.id, second.name, second.titles, second.bundles) == (7, "7", ("<|im_end|> Products:",), ())


@pytest.mark.parametrize(
    "text",
    [
        TABLE.replace("\n", "\r\n"),
        "\ufeff" + TABLE,
        TABLE.replace(",", ";").replace("cup; ", "cup, "),
        TABLE.replace(",", "\t").replace("cup\t ", "cup, "),
        TABLE.replace("session,item,title,bundle", " Session , ITEM,Title,Bundle"),
        "\n" + TABLE.rstrip("\n") + "\n\n",
    ],
    ids=["windows", "mark", "semicolon", "tabs", "names", "blank lines"],
)
def test_csv_is_read_as_programs_write_it(write, text):
    sessions = load_sessions(write(text)).sessions
    plain = load_sessions(write(TABLE, "plain.csv")).sessions
    assert [(s.id, s.items, s.bundles) for s in sessions] == [(s.id, s.items, s.bundles) for s in plain]
    assert [t.replace("\r\n", "\n") for s in sessions for t in s.titles] == [t for s in plain for t in s.titles]


def test_json_lines_hold_items_or_whole_sessions(write):
    items = [{"item": "a", "title": "x", "bundle": ["k"]}, {"item": 2, "title": "y", "bundle": "k|l"},
             {"item": "c", "title": "z", "bundle": "l", "price": 3.5}]  # fmt: skip
    whole = json.dumps({"session": "s1", "items": items, "split": "dev"})
    single = "\r\n".join(json.dumps({"session": "s1", "split": "Validation", **item}) for item in items)
    for text in (whole, single, f"\n{whole}\n\n"):
        (session,) = load_sessions(write(text, "x.jsonl"), "validation")
        assert session.items == ("a", "2", "c") and session.titles == ("x", "y", "z") and session.bundles == BUNDLES


def test_datasets_are_read_alike():
    import datasets

    rows = {"session": ["s1", "s1", "s2"], "item": [1, 2, 1], "title": ["x", "y", "z"], "bundle": [1.0, 1.0, None]}
    found = load_sessions(datasets.Dataset.from_dict(rows))
    assert [(s.name, s.items, s.bundles) for s in found] == [
        ("s1", ("1", "2"), (frozenset({1, 2}),)),
        ("s2", ("1",), ()),
    ]
    both = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(rows),
        test=datasets.Dataset.from_dict({"session": ["s3"], "item": ["i"], "title": ["t"]}),
    )
    assert [s.name for s in load_sessions(both, "test")] == ["s3"] and len(load_sessions(both)) == 3
    with pytest.raises(DataError, match="the dataset: no column title: it has session, item; rename_columns"):
        load_sessions(datasets.Dataset.from_dict({"session": ["s"], "item": ["i"]}))
    with pytest.raises(DataError, match="the dataset: unknown split 'unsupervised': choose among train"):
        load_sessions(datasets.DatasetDict(unsupervised=both["test"]))
    with pytest.raises(DataError, match="the dataset's test split, row 1: title is None: give a text"):
        none = datasets.Dataset.from_dict({"session": ["s3"], "item": ["i"], "title": [None]})
        load_sessions(datasets.DatasetDict(test=none))
    with pytest.raises(DataError, match="session 's3' is in another split too"):
        load_sessions(datasets.DatasetDict(test=both["test"], train=both["test"]))


def test_what_is_no_dataset_is_refused():
    refused(["session", "item"], "the dataset, row 1: 'session' is no mapping of columns to values: give a Dataset")
    assert load_sessions([{"session": 1, "item": 1, "title": "t"}]).sessions[0].titles == ("t",)


def test_reading_files_needs_no_datasets(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert len(load_sessions(write(TABLE))) == 2


titles = st.text(min_size=1, max_size=30).filter(str.strip)
names = st.text(min_size=1, max_size=12).filter(str.strip)


@st.composite
def some_sessions(draw):
    found = []
    for k, name in enumerate(draw(st.lists(names, min_size=1, max_size=4, unique=True))):
        n = draw(st.integers(1, 8))
        items = draw(st.lists(names, min_size=n, max_size=n, unique=True))
        sets = st.frozensets(st.integers(1, n), min_size=2) if n > 1 else st.nothing()
        bundles = draw(st.lists(sets, max_size=3, unique=True)) if n > 1 else []
        shown = draw(st.lists(titles, min_size=n, max_size=n))
        found.append(Session(id=k, items=tuple(items), titles=tuple(shown), bundles=tuple(bundles), name=name))
    return found


@given(some_sessions(), st.sampled_from(["csv", "jsonl"]))
def test_what_is_written_is_read(tmp_path_factory, sessions, ending):
    path = tmp_path_factory.mktemp("written") / f"x.{ending}"
    write_sessions(path, sessions, notes={0: "a note"})
    if ending == "csv" and "\0" in path.read_text():  # which no program writes into a table
        with pytest.raises(DataError, match="no text in UTF-8"):
            load_sessions(path)
        return
    found = load_sessions(path).sessions
    assert [(s.name, s.items, s.titles) for s in found] == [(s.name, s.items, s.titles) for s in sessions]
    assert [set(s.bundles) for s in found] == [set(s.bundles) for s in sessions]


def test_only_known_endings_are_written(tmp_path):
    with pytest.raises(ValueError, match=r"x.txt: give a name that ends with .csv or .jsonl"):
        write_sessions(tmp_path / "x.txt", [])


# --- splits and ids ---------------------------------------------------------------------------------------------------


def rows(names):
    return "session,item,title\n" + "".join(f"{name},{item},t\n" for name in names for item in "ab")


def test_a_hash_decides_on_the_split_whatever_else_is_there(write):
    every = [f"session {k}" for k in range(600)]
    of = {split: {s.name for s in load_sessions(write(rows(every)), split)} for split in SPLITS}
    assert set.union(*of.values()) == set(every) and sum(map(len, of.values())) == 600
    for split in SPLITS:
        assert abs(len(of[split]) / 600 - TENTHS.count(split) / 10) < 0.05
    some = random.Random(0).sample(every, 200)
    other = load_sessions(write(rows(some), "other.csv"), "test")
    assert {s.name for s in other} == of["test"] & set(some)
    ids = {s.name: s.id for s in load_sessions(write(rows(every)))}
    assert all(ids[s.name] == s.id for s in other) and len(set(ids.values())) == 600


@given(st.text(string.printable, min_size=1).filter(str.strip))
def test_an_id_is_the_name_if_that_is_a_number_and_exact_in_json(name):
    from routedk_lite.data.drafts import _id

    number = _id(name)
    assert 0 <= number < 2**53
    assert (number == int(name)) if name.isdecimal() and str(int(name)) == name and len(name) < 16 else number >= 2**52


def test_a_column_decides_on_the_split(write):
    text = "session,item,title,split\n1,a,t,train\n2,a,t,VAL\n3,a,t, test \n4,a,t,dev\n5,a,t,valid\n1,b,u,train\n"
    path = write(text)
    assert [[s.id for s in load_sessions(path, split)] for split in SPLITS] == [[1], [2, 4, 5], [3]]
    assert len(load_sessions(path)) == 5
    refused(write("session,item,title,split\n1,a,t,train\n"), "none of the split 'test'", split="test")
    with pytest.raises(ValueError, match="unknown split 'dev': choose one of train, validation, test, all"):
        load_sessions(path, "dev")


# --- what is refused --------------------------------------------------------------------------------------------------

HEAD = "session,item,title,bundle\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", ["sessions.csv: it is empty"]),
        (" \n\n", ["it is empty"]),
        (HEAD, ["it holds no session"]),
        ("1,a,t\n", ["line 1: no column session, item, title: the first line must name", "it names 1, a, t"]),
        ("session,title\n1,a\n", ["line 1: no column item"]),
        ("session,item,title,title\n", ["line 1: the column title stands there twice"]),
        (HEAD + "1,a,t\n", ["line 2: 3 values for 4 columns"]),
        (HEAD + "1,a,tea, cup,\n", ["line 2: 5 values for 4 columns: put quotation marks"]),
        (HEAD + '1,a,"tea,\n1,b,cup,\n', ["line 2: no row of CSV (unexpected end of data)"]),
        (HEAD + '1,a,"t\nu",\n1,b," ",\n', ["line 4: title is empty"]),
        (HEAD + "1,a,,\n", ["line 2: title is empty"]),
        (HEAD + ",a,t,\n", ["line 2: session is empty"]),
        (HEAD + "1, ,t,\n", ["line 2: item is empty"]),
        (HEAD + "1,a,t,\n2,a,t,\n1,a,u,\n", ["line 4: item 'a' stands in session '1' twice, first in line 2"]),
        (HEAD + "1,a,t,k\n1,b,t,\n", ["line 2: bundle is 'k', which no other item of session '1' has"]),
        ("session,item,title,split\n1,a,t,train\n1,b,t,test\n", ["line 3: split is 'test', in line 2 it is 'train'"]),
        ("session,item,title,split\n1,a,t,holdout\n", ["line 2: split is 'holdout': choose one of train, validation"]),
        ("session,item,title,split\n1,a,t,\n", ["line 2: split is '': choose one of"]),
        (TABLE.encode("utf-16"), ["it is no text in UTF-8 (UTF-16"]),
        (TABLE.encode("utf-16-le"), ["it is no text in UTF-8 (UTF-16"]),
        ((HEAD + "1,a,tea,\n1,b,café,\n").encode("latin-1"), ["line 3: byte 0xe9 is not UTF-8 (Latin-1?): save it"]),
    ],
)  # fmt: skip
def test_a_bad_table_is_named_by_file_line_and_field(write, text, said):
    refused(write(text), "sessions.csv", *said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "line 1: [1] is no JSON object"),
        ('{"session": 1', "line 1: no JSON (Expecting ',' delimiter"),
        ('{"session": 1, "item": "a"}', "line 1: title is missing"),
        ('\n{"session": 1, "item": "a", "title": null}', "line 2: title is None: give a text"),
        ('{"session": 1, "item": "a", "title": NaN}', "line 1: title is nan: give a text"),
        ('{"session": 1, "item": "a", "title": 3}', "line 1: title is 3: give a text"),
        ('{"session": 1.5, "item": "a", "title": "t"}', "line 1: session is 1.5: give a text or a whole number"),
        ('{"session": true, "item": "a", "title": "t"}', "line 1: session is True: give a text"),
        ('{"session": 1, "item": ["a"], "title": "t"}', "line 1: item is ['a']: give a text"),
        ('{"session": 1, "item": "a", "title": "\\ud83d"}', "line 1: title is '\\ud83d', which holds half a character"),
        ('{"session": "\\udc00", "item": "a", "title": "t"}', "line 1: session is '\\udc00', which holds half"),
        ('{"session": 1, "item": "a", "title": "t", "bundle": {"k": 1}}', "line 1: bundle is "),
        ('{"session": 1, "item": "a", "title": "t", "bundle": [true]}', "line 1: bundle is [True]: give a label"),
        ('{"session": 1, "item": "a", "title": "t", "title": "u"}', "line 1: the field title stands there twice"),
        ('{"session": 1, "item": "a", "title": "t", "split": null}', "line 1: split is None: choose one of"),
        ('{"session": 1, "items": []}', "line 1: items is []: give a list"),
        ('{"session": 1, "items": "ab"}', "line 1: items is 'ab': give a list"),
        ('{"session": 1, "items": ["a"]}', "line 1, item 1: 'a' is no object"),
        ('{"session": 1, "items": [{"item": "a", "title": "t"}, {"item": "b"}]}', "line 1, item 2: title is missing"),
        ('{"session": 1, "items": [{"item": "a", "title": "t"}]}\n' * 2, "line 2, item 1: session '1' began in line 1"),
        ('{"session": 1, "item": "a", "title": "t"}\n{"session": 1, "items": [{"item": "b", "title": "t"}]}',
         "line 2, item 1: session '1' began in line 1: write a whole session in one place"),
    ],
)  # fmt: skip
def test_a_bad_line_of_json_is_named(write, text, said):
    refused(write(text, "mine.jsonl"), f"mine.jsonl, {said}")


def test_the_first_few_bad_rows_are_named_and_the_others_counted(write):
    bad = write(HEAD + "1,a,t,\n" + "1,b,,\n" * 8)
    refused(bad, "sessions.csv, line 3: title is empty", "; line 7: title is empty", "; and 3 more")
    with pytest.raises(DataError, match="^(?!.*line 8)"):
        load_sessions(bad)


def test_other_files_are_refused(tmp_path, write):
    refused(tmp_path / "none.csv", "none.csv: there is no such file or folder")
    refused(write("{}", "x.json"), "x.json: unknown kind of file: give one that ends with .csv, .tsv, .jsonl")
    refused(tmp_path / "none.parquet", "there is no such file")
    with pytest.raises(ValueError, match="source = '' is empty"):
        load_sessions("")


def test_a_changed_file_is_read_again(write):
    assert len(load_sessions(write(TABLE))) == 2
    assert len(load_sessions(write(TABLE + "8,a,t,\n"))) == 3


# --- a folder as a domain ---------------------------------------------------------------------------------------------


def annotated(names):
    return HEAD + "".join(f"{name},{item},{item} of {name},k\n" for name in names for item in "ab")


def test_a_folder_is_a_domain(write, tmp_path):
    for split, name in (("train", "train.csv"), ("validation", "val.tsv"), ("test", "Test.jsonl")):
        text = annotated([f"{split} {k}" for k in range(3)])
        if name.endswith("jsonl"):
            text = json.dumps({"session": 1, "items": [{"item": k, "title": "t", "bundle": 1} for k in "ab"]})
        write(text.replace(",", "\t") if name.endswith("tsv") else text, f"my shop/{name}")
    folder = tmp_path / "my shop"
    (folder / "notes.csv").write_text("anything")
    assert [len(load_domain(folder, split)) for split in SPLITS] == [3, 3, 1]
    found = load_domain(str(folder), "train")
    assert (found.name, found.split) == ("my-shop", "train") and domain_is_cached(folder)
    assert [s.called for s in found] == ["'train 0'", "'train 1'", "'train 2'"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "holds no sessions.csv, nor .tsv, .jsonl, .ndjson"),
        ({"sessions.csv": TABLE, "sessions.jsonl": ""}, "holds both sessions.csv and sessions.jsonl"),
        ({"sessions.csv": TABLE, "train.csv": TABLE}, "holds both sessions.csv and train.csv"),
        ({"val.csv": TABLE, "dev.csv": TABLE}, "holds both dev.csv and val.csv"),
        ({"train.csv": TABLE, "test.csv": TABLE}, "session 's1' stands in"),
        ({"train.csv": TABLE}, "none of the split 'test'"),
        ({"test.csv": "session,item,title,split\n1,a,t,train\n"},
         "line 2: split is 'train', in the file of the split 'test'"),
        ({"test.csv": "session,item,title\n1,a,t\n"}, "none of 1 test sessions has a bundle (column bundle)"),
    ],
)  # fmt: skip
def test_a_folder_that_is_no_domain_says_why(write, tmp_path, files, said):
    (tmp_path / "mine").mkdir()
    for name, text in files.items():
        write(text, f"mine/{name}")
    with pytest.raises(DataError) as caught:
        load_domain(tmp_path / "mine", "test")
    assert said in str(caught.value)


def test_sessions_without_bundles_are_no_part_of_the_domain(write, tmp_path):
    write(annotated("xyz") + "w,a,t,\n", "mine/test.csv")
    with pytest.warns(UserWarning, match="1 of 4 test sessions, 'w' the first, have no bundle: left out"):
        assert [s.name for s in load_domain(tmp_path / "mine", "test")] == ["x", "y", "z"]
    assert [s.name for s in load_sessions(tmp_path / "mine", "test")] == ["x", "y", "z", "w"]


def test_a_name_is_a_folder_only_if_no_domain_has_it(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("food", "mine", "Mine & Yours", ".hidden"):
        write(annotated("ab"), f"{folder}/train.csv")
    assert own_folder("food") is None and domain_name("food") == "food"
    assert domain_name("./food") == "own-food" and domain_name("food/") == "own-food"
    assert own_folder("mine") is not None and domain_name("mine") == domain_name("./mine/") == "mine"
    assert domain_name("Mine & Yours") == "Mine-Yours" and domain_name("./.hidden") == "hidden"
    monkeypatch.chdir(tmp_path / "mine")
    assert domain_name(".") == "mine" and load_domain(".", "train").name == "mine"
    assert own_folder("nowhere") is None
    with pytest.raises(DataError, match=r"domain = './nowhere': there is no such folder"):
        own_folder("./nowhere")
    with pytest.raises(DataError, match="domain = 'train.csv' is a file: put it into a folder as sessions.csv"):
        own_folder("train.csv")
    with pytest.raises(ValueError, match="unknown domain 'nowhere': choose one of electronic.*or a folder of sessions"):
        load_domain("nowhere", "train")


@given(st.text(max_size=20).filter(lambda name: "/" not in name and "\0" not in name))
def test_a_safe_name_is_one_that_a_folder_of_records_can_have(name):
    safe = own._safe(name)
    assert safe and safe not in DOMAINS and not safe.startswith(".") and not set(safe) & set(' /\\:*?"<>|')


def test_what_a_session_is_called_stands_in_messages():
    session = Session(id=5, items=("a",), titles=("t",), bundles=(), name="my session")
    with pytest.raises(DataError, match="session 'my session': order"):
        session.permuted([1])
    with pytest.raises(ValueError, match="session 'my session' has no ground-truth bundle"):
        rdk.evaluate({}, [session])
