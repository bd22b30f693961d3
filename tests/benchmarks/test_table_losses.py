"""Where we lose: what is said of the best of ours and of the default, and in which order."""

from dataclasses import replace

from made_contests import AHEAD_BUT_UNSURE, AHEAD_IN_PART, BEHIND, Titles, made_against, made_contest

from benchmarks.table_losses import losses

CLEARLY_AHEAD = made_against("padim", -0.04, -0.03, -0.01, settled=False)


def told(*found):
    return losses(Titles, found).splitlines()


def test_losses_of_the_default_stand_beside_those_of_the_best_and_clear_ones_first():
    default = made_contest(CLEARLY_AHEAD, AHEAD_BUT_UNSURE, AHEAD_IN_PART, BEHIND, value=0.5)
    best = made_contest(AHEAD_BUT_UNSURE, BEHIND, best="klip", default=default)
    assert told(best) == [
        "- **head_ct, image AUROC**: our default, AnoDODE, default rule (0.500), is clearly behind PaDiM ‡ by 0.030 "
        "[+0.010, +0.040]; behind, but not clearly, PatchCore by 0.050 [−0.020, +0.120]; on a part of the images "
        "behind, but not clearly, DDPM-OOD, reconstructions from several levels § by 0.070 [−0.070, +0.260].",
        "- **head_ct, image AUROC**: our best, KLIP of whole images (0.600), is behind, but not clearly, PatchCore by "
        "0.050 [−0.020, +0.120].",
    ]


def test_a_default_that_is_the_best_has_one_line():
    best = made_contest(AHEAD_BUT_UNSURE, figure="pixel_ap")
    (line,) = told(replace(best, default=best))
    assert "pixel AP**: our best, and our default, AnoDODE, default rule (0.600), is behind, but not clearly," in line


def test_only_those_that_are_behind_are_told():
    default = made_contest(AHEAD_BUT_UNSURE, value=0.5)
    (line,) = told(made_contest(BEHIND, best="klip", default=default))
    assert "our default, AnoDODE" in line
    assert told(made_contest(BEHIND)) == [
        "In none of these figures is the best of ours, or our default, below another method."
    ]


def test_no_loss_over_few_patients_is_clear_and_none_ends_at_less_than_nothing():
    few = made_against("padim", -0.0625, -0.0625, 0.0, patients=4)
    clear_in_part = made_against("elbo", -0.3, -0.2, -0.1, every=2)
    assert told(made_contest(few))[0].endswith("is behind, but not clearly, PaDiM by 0.062 [+0.000, +0.062] †.")
    (line,) = told(made_contest(clear_in_part, BEHIND))
    assert "is on a part of the images clearly behind Diffusion ELBO, bits/dim § by 0.200 [+0.100, +0.300]." in line
