"""Which images there are, whose they are, and what is known about them."""

import os
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from priorlens.datasets import Case, find_cases, fingerprint, healthy_cases, labelled_cases, split_groups
from priorlens.errors import InputError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def names(cases: list[Case]) -> list[str]:
    return [case.name for case in cases]


def says(error: pytest.ExceptionInfo[InputError], *parts: object) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, text


# --- finding


def test_folder_is_searched_in_depth_in_natural_order_without_hidden_files(tmp_path: Path) -> None:
    touch(tmp_path, "s10.png", "s2.PNG", "B/1.jpeg", "a/x.npy", ".hidden.png", ".git/x.png", "notes.txt", "a/.x.png")
    cases = find_cases([tmp_path])
    assert names(cases) == ["a/x", "B/1", "s2", "s10"]
    assert [case.path for case in cases] == [tmp_path / n for n in ("a/x.npy", "B/1.jpeg", "s2.PNG", "s10.png")]
    assert [case.group for case in cases] == names(cases), "every image a patient of its own"
    assert {(case.kind, case.mask) for case in cases} == {("good", None)}


def test_several_inputs_keep_their_order_and_no_file_comes_twice(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "a/2.png", "b/3.png")
    cases = find_cases([tmp_path / "b", tmp_path / "a" / "2.png", tmp_path / "a"])
    assert names(cases) == ["3", "2", "1"]


def test_names_are_unique(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "a/x.png", "b/x.png", "c/x.png", "c/x.png.npy")
    inputs = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    assert names(find_cases(inputs)) == ["x", "x.png", "x.png~2", "x.png~3", "x.png.npy"]
    assert find_cases(inputs) == find_cases(inputs)


@settings(max_examples=40, deadline=None)
@given(stems=st.lists(st.sampled_from(["x", "y", "x.png", "x.png~2", "y~2"]), min_size=1, max_size=8), data=st.data())
def test_names_are_unique_whatever_the_files(
    tmp_path_factory: pytest.TempPathFactory, stems: list[str], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("names")
    for number, stem in enumerate(stems):
        touch(folder, f"{number}/{stem}{data.draw(st.sampled_from(['.png', '.jpg']))}")
    found = names(find_cases([folder / str(number) for number in range(len(stems))]))
    assert len(set(found)) == len(stems)


def test_a_file_named_by_itself_is_left_to_the_reader(tmp_path: Path) -> None:
    assert names(find_cases([touch(tmp_path, "slice.dcm") / "slice.dcm"])) == ["slice"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    touch(tmp_path, "store/1.png", "data/2.png")
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "round").symlink_to(tmp_path / "data")
    assert names(find_cases([tmp_path / "data"])) == ["2", "linked/1"]


def test_nothing_found(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(InputError) as error:
        find_cases([tmp_path])
    says(error, tmp_path, "holds no images")
    with pytest.raises(InputError) as error:
        find_cases([tmp_path / "missing"])
    says(error, tmp_path / "missing", "no such file or folder")
    with pytest.raises(InputError) as error:
        find_cases([])
    says(error, "no images were named")


def test_folder_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError) as error:
        find_cases([tmp_path])
    says(error, tmp_path, "permission denied")


# --- patients


def test_group_is_the_first_capture_or_the_whole_match(tmp_path: Path) -> None:
    touch(tmp_path, "p1/a_01.png", "p1/b_02.png", "p2/a_03.png")
    assert [case.group for case in find_cases([tmp_path], group=r"^(p\d)/")] == ["p1", "p1", "p2"]
    assert [case.group for case in find_cases([tmp_path], group=r"[ab](?=_)")] == ["a", "b", "a"]


@pytest.mark.parametrize("group", [r"^(p\d)/", r"(x)?", r"z*"])
def test_group_that_names_nobody(tmp_path: Path, group: str) -> None:
    touch(tmp_path, "q1.png")
    with pytest.raises(InputError) as error:
        find_cases([tmp_path], group=group)
    says(error, tmp_path / "q1.png", "names no patient")


def test_group_that_is_no_expression(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        find_cases([touch(tmp_path, "a.png")], group="(")
    says(error, "(: is not a regular expression")


def manifest(folder: Path, *lines: str, header: str = "file,group,kind,mask") -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")
    return path


def test_manifest_names_patient_kind_and_mask(tmp_path: Path) -> None:
    touch(tmp_path, "img/1.png", "img/2.png", "img/3.png", "masks/2.png")
    path = manifest(tmp_path, "img/1.png,ann,,", "img/2.png,bob,tumour,masks/2.png", "img/3.png,ann,good,")
    cases = find_cases([tmp_path / "img"], manifest=path)
    assert [(c.name, c.group, c.kind) for c in cases] == [
        ("1", "ann", "good"),
        ("2", "bob", "tumour"),
        ("3", "ann", "good"),
    ]
    assert [c.mask for c in cases] == [None, tmp_path / "masks" / "2.png", None]


def test_manifest_alone_is_the_list_of_images(tmp_path: Path) -> None:
    touch(tmp_path, "csv/a/1.png", "csv/b/1.png", "csv/rest.png", "other/1.png")
    path = manifest(tmp_path / "csv", "b/1.png,x", "a/1.png,y", "../other/1.png,y", header="file,group")
    cases = find_cases([], manifest=path)
    assert [(c.name, c.group) for c in cases] == [("b/1", "x"), ("a/1", "y"), ("1", "y")]


def test_manifest_must_list_every_image(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    with pytest.raises(InputError) as error:
        find_cases([tmp_path], manifest=manifest(tmp_path, "1.png,ann", header="file,group"))
    says(error, tmp_path / "2.png", "has no line in")


@pytest.mark.parametrize(
    ("header", "lines", "reason"),
    [
        ("file,patient", ["1.png,a"], "must name the columns"),
        ("file,group,age", ["1.png,a,3"], "must name the columns"),
        ("file,group", ["1.png,"], "line 2"),
        ("file,group", ["1.png"], "line 2"),
        ("file,group", ["1.png,a,b"], "line 2"),
        ("file,group", ["1.png,a", "9.png,a"], "line 3"),
        ("file,group,mask", ["1.png,a,9.png"], "there is no file"),
        ("file,group", ["1.png,a", "./1.png,b"], "second time"),
        ("file,group", [], "lists no images"),
    ],
)
def test_manifest_that_cannot_be_used(tmp_path: Path, header: str, lines: list[str], reason: str) -> None:
    path = manifest(touch(tmp_path, "1.png"), *lines, header=header)
    with pytest.raises(InputError) as error:
        find_cases([tmp_path], manifest=path)
    says(error, path, reason)


def test_manifest_missing_or_not_text(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    with pytest.raises(InputError) as error:
        find_cases([tmp_path], manifest=tmp_path / "none.csv")
    says(error, tmp_path / "none.csv", "no such file")
    (tmp_path / "bad.csv").write_bytes(b"file,group\n\xff\xfe,a\n")
    with pytest.raises(InputError) as error:
        find_cases([tmp_path], manifest=tmp_path / "bad.csv")
    says(error, tmp_path / "bad.csv", "UTF-8")


def test_group_and_manifest_together(tmp_path: Path) -> None:
    path = manifest(touch(tmp_path, "1.png"), "1.png,a", header="file,group")
    with pytest.raises(InputError) as error:
        find_cases([tmp_path], group="1", manifest=path)
    says(error, path, "leave out --group")


# --- healthy images to learn from


def test_healthy_images_of_a_plain_folder_and_of_a_data_set(tmp_path: Path) -> None:
    eight = [f"{number}.png" for number in range(8)]
    plain = touch(tmp_path / "plain", *eight)
    data_set = touch(tmp_path / "set", *(f"train/good/{name}" for name in eight), "test/good/9.png")
    expected = [str(number) for number in range(8)]
    assert names(healthy_cases(plain)) == names(healthy_cases(data_set)) == expected
    assert [case.group for case in healthy_cases(data_set, group=r"^\d")] == expected


def test_healthy_images_leave_out_what_the_manifest_calls_abnormal(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{number}.png" for number in range(9)))
    lines = [f"{number}.png,p{number},{'tumour' if number == 4 else 'good'}" for number in range(9)]
    path = manifest(tmp_path, *lines, header="file,group,kind")
    assert names(healthy_cases(tmp_path, manifest=path)) == [str(n) for n in range(9) if n != 4]


@pytest.mark.parametrize(("count", "reason"), [(0, "holds no images"), (1, "only one healthy image"), (7, "only 7")])
def test_too_few_healthy_images(tmp_path: Path, count: int, reason: str) -> None:
    touch(tmp_path, *(f"{number}.png" for number in range(count)))
    with pytest.raises(InputError) as error:
        healthy_cases(tmp_path)
    says(error, tmp_path, reason)
    assert count == 0 or "at least 8" in str(error.value)


def test_test_images_are_never_taken_for_healthy(tmp_path: Path) -> None:
    touch(tmp_path, *(f"test/tumour/{number}.png" for number in range(9)))
    with pytest.raises(InputError) as error:
        healthy_cases(tmp_path)
    says(error, tmp_path, "no train/good/")


# --- labelled images to be judged by


def data_set(folder: Path) -> Path:
    return touch(
        folder,
        *("test/good/1.png", "test/good/2.png", "test/star/7.png"),
        *("test/tumour/1.jpg", "test/tumour/p/3.png", "test/tumour/4.png"),
        *("ground_truth/tumour/1.png", "ground_truth/tumour/p/3_mask.tif"),
    )


def test_labelled_images_and_their_masks(tmp_path: Path) -> None:
    cases = labelled_cases(data_set(tmp_path))
    truth = tmp_path / "ground_truth" / "tumour"
    assert [(c.name, c.kind, c.mask) for c in cases] == [
        ("good/1", "good", None),
        ("good/2", "good", None),
        ("star/7", "star", None),
        ("tumour/1", "tumour", truth / "1.png"),
        ("tumour/4", "tumour", None),
        ("tumour/p/3", "tumour", truth / "p" / "3_mask.tif"),
    ]
    assert [c.group for c in cases] == ["1", "2", "7", "1", "4", "p/3"], "one name in two kinds is one patient"


def test_labelled_images_that_differ_by_suffix_share_their_mask(tmp_path: Path) -> None:
    touch(data_set(tmp_path), "test/tumour/1.png")
    cases = {case.name: case.mask for case in labelled_cases(tmp_path)}
    assert cases["tumour/1"] == cases["tumour/1.png"] == tmp_path / "ground_truth/tumour/1.png"


def test_labelled_group_is_told_inside_the_kind(tmp_path: Path) -> None:
    assert {case.group for case in labelled_cases(data_set(tmp_path), group=r"\d(?=\.)")} == {"1", "2", "3", "4", "7"}


def test_labelled_images_with_a_manifest(tmp_path: Path) -> None:
    data_set(tmp_path)
    files = [str(case.path.relative_to(tmp_path)) for case in labelled_cases(tmp_path)]
    path = manifest(tmp_path, *(f"{file},ann" for file in files), header="file,group")
    cases = labelled_cases(tmp_path, manifest=path)
    assert {case.group for case in cases} == {"ann"}
    assert [(c.kind, c.mask) for c in cases] == [(c.kind, c.mask) for c in labelled_cases(tmp_path)]


@pytest.mark.parametrize("orphan", ["tumour/9.png", "tumour/4_seg.png", "star/1.png", "tumour/1_mask.png"])
def test_mask_without_an_image(tmp_path: Path, orphan: str) -> None:
    touch(data_set(tmp_path), f"ground_truth/{orphan}")
    with pytest.raises(InputError) as error:
        labelled_cases(tmp_path)
    says(error, tmp_path / "ground_truth" / orphan, "has no image")


def test_masks_of_a_kind_without_images(tmp_path: Path) -> None:
    touch(data_set(tmp_path), "ground_truth/bleed/1.png")
    with pytest.raises(InputError) as error:
        labelled_cases(tmp_path)
    says(error, tmp_path / "ground_truth" / "bleed", tmp_path / "test" / "bleed")


def test_masks_of_healthy_images_and_hidden_folders_do_not_matter(tmp_path: Path) -> None:
    expected = labelled_cases(data_set(tmp_path))
    touch(tmp_path, "ground_truth/good/1.png", "ground_truth/.cache/1.png", "test/.cache/1.png")
    (tmp_path / "ground_truth" / "star").mkdir()
    assert labelled_cases(tmp_path) == expected


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (["1.png"], "has no test/ folder"),
        (["test/tumour/1.png"], "has no good/ folder"),
        (["test/good/1.png"], "has no abnormal kind"),
        (["test/good/notes.txt", "test/tumour/1.png"], "holds no images"),
    ],
)
def test_folder_that_is_no_labelled_data_set(tmp_path: Path, files: list[str], reason: str) -> None:
    with pytest.raises(InputError) as error:
        labelled_cases(touch(tmp_path, *files))
    says(error, tmp_path, reason)


# --- splits and fingerprints


def of_groups(groups: list[str]) -> list[Case]:
    return [Case(Path(f"{number}.png"), str(number), group) for number, group in enumerate(groups)]


patients = st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40)


@given(groups=patients, share=st.floats(0.01, 0.99), seed=st.integers(0, 99))
@settings(deadline=None)
def test_no_split_cuts_a_patient(groups: list[str], share: float, seed: int) -> None:
    assume(len(set(groups)) > 1)
    cases = of_groups(groups)
    kept, aside = split_groups(cases, share, seed)
    assert kept and aside
    assert not {c.group for c in kept} & {c.group for c in aside}
    assert sorted(kept + aside, key=lambda c: int(c.name)) == cases
    assert [kept, aside] == [[c for c in cases if c in part] for part in (kept, aside)], "in order"
    backwards = split_groups(cases[::-1], share, seed)
    assert backwards[1] == aside[::-1], "the same whatever the order"
    largest = max(groups.count(g) for g in groups)
    assert abs(len(aside) - share * len(cases)) <= largest


def test_split_is_drawn_by_the_seed() -> None:
    cases = of_groups([str(number) for number in range(50)])
    sides = {tuple(names(split_groups(cases, 0.2, seed)[1])) for seed in range(10)}
    assert len(sides) == 10 and {len(side) for side in sides} == {10}
    assert split_groups(cases, 0.2, 3) == split_groups(cases, 0.2, 3)


def test_split_needs_two_patients() -> None:
    with pytest.raises(InputError, match="all 3 images belong to patient 'ann'"):
        split_groups(of_groups(["ann"] * 3), 0.5, 0)
    with pytest.raises(InputError, match="there are no images"):
        split_groups([], 0.5, 0)
    with pytest.raises(ValueError):
        split_groups(of_groups(["a", "b"]), 1.0, 0)


def test_fingerprint_depends_on_contents_alone(tmp_path: Path) -> None:
    cases = find_cases([touch(tmp_path, "a.png", "b.png")])
    before = fingerprint(cases)
    assert len(before) == 64 and fingerprint(cases[::-1]) == before
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    assert fingerprint(find_cases([tmp_path])) == before
    (tmp_path / "c.png").write_bytes(b"other")
    assert fingerprint(find_cases([tmp_path])) != before
    with pytest.raises(InputError) as error:
        fingerprint(cases)
    says(error, tmp_path / "b.png")
