"""Who counts as the best other, and when ours is said to be behind."""

from dataclasses import replace

from made_contests import AHEAD_BUT_UNSURE, AHEAD_IN_PART, BEHIND, Titles, made_against, made_contest, made_runs

from benchmarks.table_ahead import _both, _difference, _highest
from benchmarks.table_verdicts import clearly, in_part, lead

CLEARLY_AHEAD = made_against("padim", -0.05, -0.03, -0.01)


def test_the_best_other_has_judged_all_images():
    assert made_contest(AHEAD_IN_PART, AHEAD_BUT_UNSURE, BEHIND).leader is AHEAD_BUT_UNSURE
    assert made_contest(AHEAD_IN_PART).leader is AHEAD_IN_PART
    unknown = made_against("patchcore", *[float("nan")] * 3)
    assert made_contest(AHEAD_IN_PART, unknown).leader is AHEAD_IN_PART


def test_whoever_is_clearly_ahead_decides_and_is_named():
    told = lead(made_contest(CLEARLY_AHEAD, AHEAD_BUT_UNSURE, BEHIND), ", 0.9 times its figure")
    assert told == (
        "AnoDODE, default rule (0.600), is clearly behind PaDiM (0.500): −0.030 [−0.050, −0.010], and behind, but not "
        "clearly, the best other, PatchCore (0.500): −0.050 [−0.120, +0.020], 0.9 times its figure"
    )
    best = made_against("cflow", -0.2, -0.1, -0.05)
    told = lead(made_contest(CLEARLY_AHEAD, best))
    assert "is clearly behind the best other, CFLOW (0.500): −0.100 [−0.200, −0.050], and clearly behind PaDiM" in told
    assert "clearly ahead of the best other, STFPM" in lead(made_contest(BEHIND))


def test_few_patients_and_a_part_of_the_images_decide_nothing():
    few = made_against("padim", -0.05, -0.03, -0.01, patients=4)
    in_part_alone = made_against("ddpm_ood", -0.3, -0.2, -0.1, every=8)
    assert not made_contest(few).lost and not made_contest(in_part_alone, BEHIND).lost
    assert "clearly ahead of the best other, STFPM" in lead(made_contest(in_part_alone, BEHIND))


def test_those_ahead_on_a_part_of_the_images_are_told_apart():
    contest = made_contest(AHEAD_IN_PART, BEHIND)
    assert in_part(contest) == (
        " On the images that it judged, DDPM-OOD, reconstructions from several levels § is ahead of AnoDODE, default "
        "rule, but not clearly: −0.070 [−0.260, +0.070]."
    )
    assert _highest(Titles, contest) == "head_ct (but behind DDPM-OOD, reconstructions from several levels §)"
    assert not in_part(made_contest(AHEAD_IN_PART)), "it is the best other already"
    assert not in_part(made_contest(made_against("elbo", 0.01, 0.1, 0.2, every=2), BEHIND))


def test_the_overview_names_another_best_other_and_who_is_clearly_ahead():
    contest = made_contest(AHEAD_BUT_UNSURE, CLEARLY_AHEAD)
    assert _difference(contest, AHEAD_BUT_UNSURE) == (
        "−0.050 [−0.120, +0.020]; clearly behind PaDiM, −0.030 [−0.050, −0.010]"
    )
    assert _difference(made_contest(BEHIND), AHEAD_BUT_UNSURE) == "+0.100 [+0.020, +0.200] (STFPM)"
    assert _difference(made_contest(BEHIND), BEHIND) == "+0.100 [+0.020, +0.200]"


def test_both_at_once_takes_one_and_the_same_method():
    klip, anodode, fused = map(made_runs, ("klip", "anodode", "fused"))
    pixels, images = (replace(made_contest(BEHIND, figure=key), ahead=(klip,)) for key in ("pixel_ap", "image_auroc"))
    assert _both(Titles, [pixels, images]) == "head_ct: *KLIP of whole images*"
    more = replace(images, ahead=(anodode, klip, fused))
    assert _both(Titles, [replace(pixels, ahead=(klip, fused)), more]) == (
        "head_ct: *KLIP of whole images* and *AnoDODE and KLIP, harmonic mean p*"
    )
    assert _both(Titles, [pixels, replace(images, ahead=(anodode,))]) == (
        "on no study. By different methods alone: head_ct: *KLIP of whole images* by pixel AP, "
        "*AnoDODE, default rule* by image AUROC"
    )
    for found in ([pixels], [pixels, replace(images, ahead=())], []):
        assert _both(Titles, found) == "on no study"


def test_peers_and_simple_baselines_are_counted_apart():
    unsettled = made_against("cflow", 0.02, 0.1, 0.2, settled=False)
    ahead_of = [made_against(name, 0.02, 0.3, 0.4) for name in ("constant", "random", "pca")]
    told = clearly(made_contest(BEHIND, unsettled, AHEAD_BUT_UNSURE, *ahead_of))
    assert told == (
        "Clearly ahead of 2 of 3 peers (1 of them not settled when training ended) and 3 of 3 simple baselines; not of "
        "PatchCore (−0.050 [−0.120, +0.020])."
    )
    assert clearly(made_contest(BEHIND), names=False) == "Clearly ahead of 1 of 1 peer."
    assert clearly(made_contest(*ahead_of)) == "Clearly ahead of 3 of 3 simple baselines."
