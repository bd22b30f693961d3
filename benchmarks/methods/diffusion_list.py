"""Peers that use the prior that KLIP has learned; what was reduced against a paper stands with its reference."""

from __future__ import annotations

from benchmarks.method import Entry

_HERE = "benchmarks.methods"
_ANODDPM = "Wyatt et al. 2022, AnoDDPM, CVPR workshops; 25 steps for 250"

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "anoddpm", "AnoDDPM, Gaussian noise", "diffusion", f"{_HERE}.anoddpm:AnoDDPM", _ANODDPM, needs="klip", slow=2
    ),
    Entry(
        "anoddpm_octaves",
        "AnoDDPM, noise of several scales",
        "diffusion",
        f"{_HERE}.anoddpm:AnoDDPMOctaves",
        f"{_ANODDPM}, prior not trained with such noise",
        needs="klip",
        slow=4,
    ),
    Entry(
        "ddpm_ood",
        "DDPM-OOD, reconstructions from several levels",
        "diffusion",
        f"{_HERE}.ddpm_ood:DDPMOOD",
        "Graham et al. 2023, arXiv 2211.07740; fewer starts, SSIM for LPIPS",
        needs="klip",
        slow=8,
    ),
    Entry(
        "diffpath",
        "DiffPath-6D, path statistics",
        "diffusion",
        f"{_HERE}.diffpath:DiffPath",
        "Heng et al. 2024, arXiv 2405.11881; smaller mixtures",
        needs="klip",
        slow=2,
    ),
    Entry(
        "elbo",
        "Diffusion ELBO, bits/dim",
        "diffusion",
        f"{_HERE}.elbo:ELBO",
        "Kingma et al. 2021, arXiv 2107.00630; 20 noise levels",
        needs="klip",
        slow=2,
    ),
)
