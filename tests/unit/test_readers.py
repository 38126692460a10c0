import os
import shutil
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from fedstil_mpi.data import readers
from fedstil_mpi.data.files import images, listing
from fedstil_mpi.data.readers import cuhk03, named
from fedstil_mpi.util.errors import InputError
from support import made_sets

SHOTS = 3


@pytest.fixture(scope="module", params=sorted(made_sets.MAKERS))
def made(request, tmp_path_factory):
    """(name of a set, its root), not to be changed."""
    root = made_sets.MAKERS[request.param](tmp_path_factory.mktemp("sets") / "root", shots=SHOTS)
    return request.param.split()[0], root


@pytest.fixture
def make(tmp_path):
    """Makes a set, which may be changed."""
    return lambda name, **options: made_sets.MAKERS[name](tmp_path / name, shots=SHOTS, **options)


def read(name, root, **how):
    return readers.read(name, root, **how).records


def people(records):
    return {record.person for record in records}


def by_source(records):
    return {record.source: record for record in records}


def refused(name, root, message):
    with pytest.raises(InputError, match=message) as caught:
        readers.read(name, root)
    assert "\n" not in str(caught.value)


def test_what_holds_for_every_set(made):
    name, root = made
    records = read(name, root)
    sources = [record.source for record in records]
    assert sources == sorted(set(sources))
    top = root.parent if name == "csv" else root
    for record in records:
        assert record.path.is_file() or record.path.parents[1].suffix == ".mat"
        assert record.path == top / record.source
        assert not {"..", ".", "", "/"} & set(record.source.split("/"))
        assert record.time is None or record.time >= 0
    pixels = Counter(images.contents(record.path) for record in records)
    assert max(pixels.values()) == 1, "a copy is read beside its original"
    cameras = {person: {s.camera for s in records if s.person == person} for person in people(records)}
    once = {"cam_a/person_0201", "cam_b/person_0201"} if name == "prid2011" else set()
    for person, seen in cameras.items():
        assert len(seen) == (1 if name == "ethz" or person in once else 2)


def test_names():
    assert set(readers.names()) == {name.split()[0] for name in made_sets.MAKERS}


def test_market1501(make):
    root = make("market1501", people=4)
    records = read("market1501", root)
    assert people(records) == {"0001", "0002", "0003", "0004"}
    # At each of two cameras three shots, and of 0001 and 0003, who are in the test, a query.
    assert Counter(record.source.split("/")[0] for record in records) == {
        "bounding_box_train": 12,
        "bounding_box_test": 12,
        "query": 4,
    }
    assert {s.camera for s in records if s.person == "0004"} == {"5", "6"}


def test_market1501_time_is_the_sequence_then_the_frame(tmp_path):
    for folder in ("bounding_box_test", "query"):
        (tmp_path / folder).mkdir()
    names = [
        "0007_c3s1_000151_01.jpg",
        "0002_c3s1_099999_00.jpg",
        "0002_c3s2_000001_01.jpg",
        "0007_c3s10_000000_02.jpg",
    ]
    for name in names:
        made_sets.save(tmp_path, f"bounding_box_train/{name}")
    records = read("market1501", tmp_path)
    assert [s.path.name for s in sorted(records, key=lambda s: s.time)] == names


def test_personx(make):
    root = make("personx", people=2)
    made_sets.save(root, "query/0001_c8s1_000151_01.jpg")
    records = by_source(read("personx", root))
    assert {record.camera for record in records.values()} == {"1", "8", "12"}
    assert records["query/0001_c12s1_36.jpg"].time is None
    assert records["query/0001_c8s1_000151_01.jpg"].time is not None


def test_msmt17_numbers_of_train_and_test_are_different_people(make):
    records = by_source(read("msmt17", make("msmt17", people=3)))
    assert people(records.values()) == {"train/0000", "train/0001", "test/0000"}
    assert records["query/0000_c14_0007.jpg"].person == records["bounding_box_test/0000_c1_0000.jpg"].person
    assert records["query/0000_c14_0007.jpg"].camera == "14"
    assert len(records) == 3 * 6 + 2


def test_cuhk03_numbers_of_train_and_val_are_different_people(make):
    root = make("cuhk03", people=3)
    for frame in (4, 9):
        made_sets.save(root, f"val/0000_{frame:02}.jpg")
    records = by_source(read("cuhk03", root))
    assert people(records.values()) == {"train/0000", "train/0001", "val/0000"}
    cameras = {frame: records[f"val/0000_{frame}.jpg"].camera for frame in ("00", "02", "04", "05", "07", "09")}
    assert cameras == {"00": "0", "02": "0", "04": "0", "05": "1", "07": "1", "09": "1"}
    made_sets.save(root, "val/0000_10.jpg")
    refused("cuhk03", root, "val/0000_10.jpg is frame 10: expected 00 to 04")


@pytest.mark.parametrize("masked", [False, True])
def test_msmt17_as_it_is_published(tmp_path, masked):
    root = made_sets.msmt17_published(tmp_path, people=3, shots=SHOTS, masked=masked)
    folders = ("mask_train_v2", "mask_test_v2") if masked else ("train", "test")
    records = read("msmt17", root)
    assert Counter((s.person, s.camera, s.source.split("/")[0]) for s in records) == {
        (person, camera, folder): SHOTS
        for person, folder in (("train/0000", folders[0]), ("train/0001", folders[0]), ("test/0000", folders[1]))
        for camera in ("01", "14")
    }
    days = sorted((s for s in records if s.person == "test/0000" and s.camera == "01"), key=lambda s: s.time)
    assert [s.path.name.split("_")[3] for s in days] == ["0113noon", "0303morning", "0303afternoon"]
    copied = next(root.glob("*test*/0000/*_14_*"))
    copied.unlink()
    refused(
        "msmt17", root, f"list_(query|gallery).txt names .*/{copied.name}, which is not there; .*; complete the copy"
    )


def test_cuhk03_in_the_layouts_in_which_it_is_passed_on(tmp_path):
    images_root = made_sets.cuhk03_images(tmp_path / "images", people=3, shots=SHOTS)
    release = made_sets.cuhk03_release(tmp_path / "release", people=3, shots=SHOTS)
    everyone = {
        (person, camera): SHOTS
        for person, cameras in (("1/001", ("1/1", "1/2")), ("1/002", ("1/1", "1/2")), ("2/001", ("2/1", "2/2")))
        for camera in cameras
    }
    for root in (images_root, images_root / "images_labeled", release, release / "cuhk-03.mat/labeled"):
        found = readers.read("cuhk03", root)
        assert Counter((s.person, s.camera) for s in found.records) == everyone
        assert found.passed_over.get(cuhk03.SAME_FRAMES, 0) == (root in (images_root, release))
    assert {s.source.split("/")[-2] for s in read("cuhk03", images_root)} == {"images_detected"}
    assert {s.source.split("/")[-2] for s in read("cuhk03", release)} == {"detected"}
    assert {s.source.split("/")[-2] for s in read("cuhk03", release / "cuhk-03.mat/labeled")} == {"labeled"}

    new = made_sets.cuhk03_new_protocol(tmp_path / "new", people=3, shots=SHOTS)
    for root in (new, new / "labeled"):
        counts = Counter((s.person, s.camera) for s in read("cuhk03", root))
        assert counts == {(f"{person:04}", camera): SHOTS for person in (1, 2, 3) for camera in "12"}


def test_an_image_of_the_release_of_cuhk03(tmp_path):
    """Stored as colour, column, row; the first by the pair's first camera, the sixth by its second."""
    root = made_sets.cuhk03_release(tmp_path / "release", people=3, shots=SHOTS)
    with h5py.File(root / "cuhk-03.mat") as file:
        stored = file["#refs#/detected1_0_6"][()]
    (record,) = (s for s in read("cuhk03", root) if s.source == "cuhk-03.mat/detected/2_001_2_07.png")
    np.testing.assert_array_equal(images.read(record.path, 16, 8), stored.transpose(2, 1, 0))
    with pytest.raises(InputError, match=r"cuhk-03.mat cannot be read \(.*\): expected the MATLAB 7.3 file"):
        images.read(record.path.with_name("2_009_2_07.png"), 16, 8)
    made_sets.write(tmp_path, "cuhk-03.mat")
    refused("cuhk03", tmp_path, "cuhk-03.mat cannot be read .*: expected the MATLAB 7.3 file of CUHK03's release")


@pytest.mark.parametrize(
    ("name", "person", "camera"),
    [
        ("lpw", "scen2/1", "scen2/view1"),
        ("randperson", "000002", "s01_c00"),
        ("randperson", "000001", "c00_s01"),
        ("unrealperson", "3", "022"),
        ("market_style", "202304001", "2"),
    ],
)
def test_people_and_cameras_of_sets_that_are_one_line(make, name, person, camera):
    records = read(name, make(name))
    assert sum((s.person, s.camera) == (person, camera) for s in records) == SHOTS
    assert len(records) == 6 * 2 * SHOTS


def test_suffixes_in_upper_case_are_read_and_what_is_passed_over_is_counted(make):
    """36 files of 108 once went without a word."""
    root = make("market1501", people=4)
    everyone = readers.read("market1501", root)
    for path in list((root / "bounding_box_train").glob("*.jpg"))[:6]:
        path.rename(path.with_suffix(".JPG"))
    made_sets.save(root, "query/holiday.png")
    made_sets.write(root, "query/scan.tiff")
    made_sets.save(root, "cover.jpg")
    (root / "@eaDir").mkdir()
    found = readers.read("market1501", root)
    assert len(found.records) == len(everyone.records)
    before = {named.NOBODY: 2, listing.OTHER_NAME: 1, listing.OTHER_FOLDER: 1, listing.HIDDEN: 1}
    assert everyone.passed_over == before
    assert found.passed_over == before | {listing.OTHER_NAME: 3, listing.BESIDE: 1, listing.HIDDEN: 2}


@pytest.mark.parametrize(
    "splits", [("train", "query", "gallery"), ("Train", "TEST"), ("bounding_box_train", "bounding_box_test")]
)
def test_splits_are_no_cameras(tmp_path, splits):
    for split in splits:
        made_sets.save(tmp_path, f"{split}/1/1.png")
    refused(
        "folder",
        tmp_path,
        f"has the folders .*{splits[1]}.*: expected cameras, .* not splits, .*; sort the images by camera",
    )


@pytest.mark.parametrize("single", [False, True])
def test_prid2011_shares_200_people(make, single):
    root = make("prid2011", people=2)
    if single:
        shutil.rmtree(root / "multi_shot")
    records = read("prid2011", root)
    shots = 1 if single else SHOTS
    assert Counter((s.person, s.camera) for s in records) == {
        ("person_0001", "cam_a"): shots,
        ("person_0001", "cam_b"): shots,
        ("person_0200", "cam_a"): shots,
        ("person_0200", "cam_b"): shots,
        ("cam_a/person_0201", "cam_a"): shots,
        ("cam_b/person_0201", "cam_b"): shots,
    }
    assert {s.source.split("/")[0] for s in records} == {"single_shot" if single else "multi_shot"}


def test_ethz_is_one_camera_and_frames_are_time(make):
    root = make("ethz", people=4)
    records = read("ethz", root)
    assert people(records) == {"seq1/p001", "seq1/p002", "seq2/p001", "seq3/p001"}
    assert {record.camera for record in records} == {"0"}
    # The made-up frames rise with the person, so that sources come in order of time.
    times = [record.time for record in records]
    assert times == sorted(set(times))


def test_pku(make):
    records = read("pku", make("pku", people=2))
    assert Counter((s.person, s.camera) for s in records) == {
        (person, camera): SHOTS for person in ("001", "002") for camera in ("01", "02")
    }


def test_real_pku():
    root = os.environ.get("FEDSTIL_PKU")
    if not root:
        pytest.skip("the environment variable FEDSTIL_PKU does not name a folder of PKU-Reid")
    counts = Counter((s.person, s.camera) for s in read("pku", Path(root)))
    assert set(counts.values()) == {8}, "eight orientations"
    assert {(person, camera) for person, _ in counts for camera in ("01", "02")} == set(counts)


TIMED = ("csv", "ethz", "lpw", "market1501", "randperson")


def test_only_names_that_are_times_give_a_time(made):
    name, root = made
    timed = {record.time is not None for record in read(name, root)}
    published = name == "msmt17" and (root / "list_val.txt").exists()
    some = {True, False} if name == "market_style" else {published or name in TIMED}
    assert timed == some


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("market1501", "query/0001_c1s1_000151_01.png"),
        ("market1501", "query/0001_c1s1_000151_01.jpg.jpg"),
        ("market1501", "query/0001_c1s1_000151_01-jpg"),
        ("market1501", "query/0001_c123s1_000151_01.jpg"),
        ("market1501", "query/0001_c1s1_000151 copy.jpg"),
        ("market1501", "query/00001_c1s1_000151_01.jpg"),
        ("market1501", "gt_query/0001_c1s1_000151_01.jpg"),
        ("msmt17", "query/0000_c1_0000xjpg"),
        ("msmt17", "query/0000_c1s1_0000.jpg"),
        ("cuhk03", "val/0000_001.jpg"),
        ("cuhk03", "val/0000_00xjpg"),
        ("prid2011", "multi_shot/cam_a/person_0001/0001xpng"),
        ("prid2011", "multi_shot/cam_a/person_0001/10001.png"),
        ("prid2011", "multi_shot/cam_a/person_00011/0001.png"),
        ("pku", "001_01_1xpng"),
        ("pku", "0001_01_1.png"),
        ("ethz", "seq1/p001/frame0001Person01xpng"),
        ("ethz", "seq1/p001/Xframe0001Person01.png"),
    ],
)
def test_names_are_matched_from_end_to_end(make, name, other):
    root = make(name)
    before = read(name, root)
    made_sets.write(root, other)
    assert read(name, root) == before


def test_folders_named_like_images_are_ignored(make):
    root = make("market1501")
    before = read("market1501", root)
    (root / "query" / "0001_c1s1_000151_01.jpg").mkdir()
    assert read("market1501", root) == before


FOLDERS = [
    *((name, folder) for name in ("market1501", "personx", "msmt17") for folder in named.MARKET),
    *(("cuhk03", folder) for folder in ("train", "val")),
    *(("prid2011", f"multi_shot/{camera}") for camera in ("cam_a", "cam_b")),
    *(("ethz", f"seq{number}") for number in (1, 2, 3)),
]


@pytest.mark.parametrize(("name", "folder"), FOLDERS)
def test_a_folder_that_is_missing_is_named_and_one_that_is_empty_is_meant(make, name, folder):
    root = make(name)
    everyone = read(name, root)
    shutil.rmtree(root / folder)
    refused(name, root, f"/{folder} cannot be listed .*: expected .* with images such as .*; create it")
    (root / folder).mkdir()
    left = [record for record in everyone if not record.source.startswith(f"{folder}/")]
    assert read(name, root) == left
    assert left


def test_missing_or_wrong_root(made, tmp_path):
    name, _ = made
    refused(name, tmp_path / "nowhere", "nowhere does not exist: expected .*; correct the path")
    made_sets.save(tmp_path, "a.png")
    refused(name, tmp_path / "a.png", "cannot be (read|listed)")


def test_nobody(tmp_path):
    made_sets.write(tmp_path, "camera/notes.txt")
    refused("folder", tmp_path, "has nobody of the set folder: expected images <camera>/<person>/<image>")
    refused(
        "pku",
        tmp_path,
        "has nobody of the set pku; 1 folders that are not the set's: expected images such as 001_01_1.png",
    )
    made_sets.write(tmp_path, "list.csv", "path,person,camera\n")
    refused("csv", tmp_path / "list.csv", "has nobody of the set csv")
    for folder in named.MARKET:
        made_sets.save(tmp_path, f"{folder}/0000_c1s1_000151_01.jpg")
    refused("market1501", tmp_path, "has nobody of the set market1501; 3 images of nobody: distractors")


LINKS = {"outside": listing.LEADS_OUT, "nowhere": listing.LEADS_NOWHERE, "circle": listing.LEADS_NOWHERE}


@pytest.fixture
def linked(tmp_path):
    """Puts a link in a place of a set, instead of what is there."""

    def function(root, place, target):
        made_sets.save(tmp_path, "outside/1.png")
        link = root / place
        if link.is_dir():
            shutil.rmtree(link)
        link.symlink_to({"outside": tmp_path / "outside", "nowhere": root / "nowhere", "circle": link}[target])

    return function


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("market1501", "query/0001_c1s1_000151_01.jpg"),
        ("prid2011", "multi_shot/cam_b/person_0003"),
        ("folder", "door"),
        ("folder", "lift/person 7"),
        ("folder", "lift/person 1/7.png"),
    ],
)
@pytest.mark.parametrize("target", LINKS)
def test_links_out_of_the_root_are_passed_over_and_counted(make, linked, name, place, target):
    root = make(name)
    linked(root, place, target)
    found = readers.read(name, root)
    assert found.passed_over[LINKS[target]] == 1
    assert not [record for record in found.records if record.source.startswith(place)]


@pytest.mark.parametrize(("name", "place"), [("market1501", "query"), ("prid2011", "multi_shot/cam_a")])
@pytest.mark.parametrize("target", LINKS)
def test_a_folder_of_the_set_that_leads_out_is_refused(make, linked, name, place, target):
    root = make(name)
    linked(root, place, target)
    refused(name, root, f"{place} is one of the links .*: expected the folders .*; copy its target there")


def test_links_out_of_the_root_are_followed_if_asked(make, tmp_path):
    root = make("folder", people=2)
    before = read("folder", root)
    (root / "lift").rename(tmp_path / "elsewhere")
    (root / "lift").symlink_to(tmp_path / "elsewhere")
    assert read("folder", root, follow_links=True) == before
    assert {record.camera for record in read("folder", root)} == {"front door"}


def test_links_inside_the_root_and_to_it(make, tmp_path):
    root = make("folder", people=2)
    before = read("folder", root)
    (root / "lift" / "person 3").symlink_to(root / "lift" / "person 2")
    (tmp_path / "link").symlink_to(root)
    records = read("folder", tmp_path / "link")
    assert [record.source for record in before] == [s.source for s in records if s.person != "person 3"]
    assert sum(record.person == "person 3" for record in records) == SHOTS
    (root / "around").symlink_to(root)
    refused("folder", root, "around/.* is no image")


def test_folder(make):
    records = read("folder", make("folder", people=1))
    assert [(s.source, s.person, s.camera) for s in records] == [
        (f"{camera}/person 1/{image}", "person 1", camera)
        for camera in ("front door", "lift")
        for image in ("0.png", "1.JPG", "2.jpeg")
    ]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("1.png", "1.png is not in a person's folder"),
        ("lift/1.PNG", "lift/1.PNG is not in a person's folder"),
        ("lift/person 1/more/1.png", "person 1/more is no image"),
        ("lift/person 1/1.gif", "1.gif is no image: expected images <camera>/<person>/<image>"),
    ],
)
def test_folder_leaves_out_no_image_in_silence(make, image, message):
    root = make("folder")
    made_sets.write(root, image)
    refused("folder", root, message)


def test_a_name_that_is_no_text(make):
    root = make("folder")
    shutil.copyfile(root / "lift" / "person 1" / "0.png", os.fsencode(root / "lift" / "person 1") + b"/\xff.png")
    refused("folder", root, "expected a name in UTF-8")


def table(root, text):
    made_sets.save(root, "a/1.png")
    made_sets.save(root, "a/2.png")
    made_sets.write(root, "list.csv", text)
    return root / "list.csv"


def test_csv(tmp_path):
    root = table(tmp_path, '\ufeffcamera, path,person ,time\n7,./a//2.png ,"Ann, B.",12\n 7,a/1.png,Ann,\n\n')
    found = [(s.source, s.path, s.person, s.camera, s.time) for s in read("csv", root)]
    assert found == [
        ("a/1.png", tmp_path / "a/1.png", "Ann", "7", None),
        ("a/2.png", tmp_path / "a/2.png", "Ann, B.", "7", 12),
    ]


def test_csv_without_times_in_the_current_folder(tmp_path, monkeypatch):
    table(tmp_path, "path,person,camera\na/1.png,1,2\n")
    monkeypatch.chdir(tmp_path)
    assert [(s.source, s.time) for s in read("csv", Path("list.csv"))] == [("a/1.png", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "list.csv has no column path: expected a CSV file with the columns path, person, camera"),
        ("path,person\n", "list.csv has no column camera"),
        ("path,person,Camera\n", "has a column 'Camera'; did you mean camera"),
        ("path,person,camera,times\n", "has a column 'times'; did you mean time"),
        ("path,person,camera,path\n", "has two columns 'path'"),
        ("path;person;camera\n", "has a column 'path;person;camera'; .*put commas between columns"),
        ("path,person,camera\na/1.png,1\n", r"line 2: expected 3 fields \(path, person, camera\)"),
        ("path,person,camera\na/1.png,1,2,3\n", "line 2: expected 3 fields"),
        ("path,person,camera\n\na/3.png,1,2\n", "line 3: .*a/3.png is no file"),
        ("path,person,camera\na,1,2\n", "line 2: .*/a is no file"),
        ("path,person,camera\n,1,2\n", "line 2: .* is no file"),
        ("path,person,camera\n../a/1.png,1,2\n", r"line 2: the path '\.\./a/1.png' leaves"),
        ("path,person,camera\na/../a/1.png,1,2\n", r"line 2: the path 'a/\.\./a/1.png' leaves"),
        ("path,person,camera\n/etc/passwd,1,2\n", "line 2: the path '/etc/passwd' leaves"),
        ("path,person,camera\na/1.png, ,2\n", "line 2: the person is empty"),
        ("path,person,camera\na/1.png,1,\n", "line 2: the camera is empty"),
        ("path,person,camera,time\na/1.png,1,2,-1\n", "line 2: the time is '-1'; expected a whole number"),
        ("path,person,camera,time\na/1.png,1,2,1.5\n", "line 2: the time is '1.5'"),
        ("path,person,camera,time\na/1.png,1,2,9999999999999999999\n", "line 2: the time is '9999999999999999999'"),
        ("path,person,camera\na/1.png,1,2\n./a/1.png,2,2\n", "line 3: a/1.png stands in line 2 too"),
        ('path,person,camera\na/1.png,"1,2\n', "list.csv cannot be read .*unexpected end of data"),
        ("path,person,camera\na/1\0.png,1,2\n", "list.csv"),
    ],
)
def test_refused_csv(tmp_path, text, message):
    refused("csv", table(tmp_path, text), message)


def test_refused_csv_files(tmp_path):
    refused("csv", tmp_path, "CSV file .* is a folder, no file; give the path of a CSV file")
    (tmp_path / "list.csv").write_bytes("path,person,camera\nä.png,1,1".encode("latin-1"))
    refused("csv", tmp_path / "list.csv", "list.csv cannot be read .*utf-8.*: expected a CSV file")


@pytest.mark.parametrize("through", ["file", "folder"])
def test_csv_and_links(tmp_path, through):
    root = tmp_path / "here"
    made_sets.save(tmp_path, "there/1.png")
    listed = table(root, "path,person,camera\na/1.png,1,2\nb/1.png,1,2\n")
    if through == "file":
        (root / "b").mkdir()
        link, inside, outside = root / "b" / "1.png", root / "a" / "1.png", tmp_path / "there" / "1.png"
    else:
        link, inside, outside = root / "b", root / "a", tmp_path / "there"
    link.symlink_to(inside)
    assert [s.source for s in read("csv", listed)] == ["a/1.png", "b/1.png"]
    link.unlink()
    link.symlink_to(outside)
    found = readers.read("csv", listed)
    assert [s.source for s in found.records] == ["a/1.png"]
    assert found.passed_over == {listing.LEADS_OUT: 1}
    assert [s.source for s in read("csv", listed, follow_links=True)] == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize("name", ["duke", "Duke", "dukemtmc", "DukeMTMC", "dukemtmcreid", "DukeMTMC-reID"])
def test_withdrawn_set(tmp_path, name):
    refused(name, tmp_path, f"{name} is not read: its authors withdrew DukeMTMC in 2019, .* had not consented")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [("Market-1501", "did you mean market1501[?] "), ("PKU", "did you mean pku[?] "), ("viper", "")],
)
def test_unknown_set(tmp_path, name, suggestion):
    refused(
        name,
        tmp_path,
        f"unknown set '{name}'; {suggestion}there are csv, cuhk03, .*, unrealperson, or give the path of a .py file$",
    )
