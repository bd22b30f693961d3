"""From what KLIP finds to what is written down of each image: figures, maps, spectrum, reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from priorlens.errors import InputError
from priorlens.images import Image
from priorlens.klip import Findings
from priorlens.klip_rules import KLIPVerdict, Learned, Seen
from priorlens.posterior.divergence import block_sums
from priorlens.posterior.reference import Reference, respaced
from priorlens.preparation import Preparation
from priorlens.scores import Scores

_SMALLEST_SSIM = 7  # pixels a side: skimage's window


@dataclass(frozen=True)
class Judged:
    """A batch of images on the model's grid, as one rule judges them.

    kl_map: bits of each pixel (of the recipe "reference": its energy, which is not in bits).
    spectrum: for each noise level: itself, its bits, and at each width how many bits the coherent drift lies above what
        healthy images show. Without rows for the recipe "reference".
    reconstruction: intensities of about [0, 1].
    """

    verdict: KLIPVerdict
    kl_map: Float[Tensor, "image side side"]
    spectrum: Float[Tensor, "image sigma column"]
    reconstruction: Float[Tensor, "image channel side side"]
    nfe: int


def judged(found: Findings, seen: Seen, learned: Learned, verdict: KLIPVerdict) -> Judged:
    """What the rules but "reference" say."""
    divergence = found.divergence
    above = seen.readings.means - learned.weighing.usual
    coherent = above[:, seen.coherent]
    sigmas = torch.tensor(divergence.sigmas).expand(len(above), -1)
    columns = [sigmas[..., None], divergence.spectrum[..., None].cpu(), coherent.unflatten(1, (len(sigmas[0]), -1))]
    return Judged(verdict, divergence.kl_map.cpu(), torch.cat(columns, 2), found.reconstruction.cpu(), found.nfe)


def judged_by_reference(found: Reference, widths: int) -> Judged:
    """What the published recipe says."""
    empty = torch.zeros(len(found.anomaly), 0, 2 + widths)
    kl_map = found.kl_map.cpu()
    return Judged(KLIPVerdict(found.anomaly.cpu(), kl_map), kl_map, empty, found.reconstruction.cpu(), found.nfe)


def steps_within(window: tuple[float, float], steps: int) -> tuple[int, int]:
    """The steps of the published recipe whose noise levels lie in a window, for intensities of [0, 1], half open.

    Raises:
        InputError: none does.
    """
    schedule = respaced(steps)
    sigma = ((1 - schedule.abar) / schedule.abar).sqrt() / 2
    inside = ((sigma >= window[0]) & (sigma <= window[1])).nonzero()[:, 0].tolist()
    if not inside:
        raise InputError(f"window {window[0]:g} to {window[1]:g}: holds none of the {steps} steps; choose a wider one")
    return inside[0], inside[-1] + 1


def scores(
    batches: Sequence[Judged],
    images: Sequence[Image] | None,
    truth: Float[Tensor, "image channel side side"] | None,
    preparation: Preparation,
    block: int,
    names: Sequence[str],
) -> Scores:
    """Everything of all images; maps and reconstructions on the images' own grids and in their intensities.

    images: None where there are none, of real measurements: maps stay on the model's grid, intensities in [0, 1].
    truth: what was measured, on the model's grid, for PSNR and SSIM; None where that is not known.
    names: of the figures.
    """
    maps, reconstructions, blocks, spectra = [], [], [], []
    figures: dict[str, list[float]] = {name: [] for name in names}
    anomaly: list[float] = []
    for batch in batches:
        for index in range(len(batch.reconstruction)):
            number = len(anomaly)
            anomaly.append(float(batch.verdict.anomaly[index]))
            own_map = batch.verdict.anomaly_map[index].cpu().float().numpy()
            own = batch.reconstruction[index].float().numpy()
            bits = block_sums(batch.kl_map[index : index + 1], block)[0]
            told = {"kl_total": float(bits.sum()), "kl_block": float(bits.amax())}
            told |= _quality(own, None if truth is None else truth[number].cpu().numpy())
            for name in names:
                figures[name].append(told[name])
            maps.append(preparation.from_model(own_map, images[number]) if images else own_map)
            reconstructions.append(preparation.image_from_model(own, images[number]) if images else own)
            blocks.append(bits.float().numpy())
            spectra.append(batch.spectrum[index].float().numpy())
    return Scores(
        anomaly=np.array(anomaly, np.float32),
        anomaly_map=tuple(maps),
        nfe=batches[0].nfe if batches else 0,
        figures={name: np.array(values, np.float32) for name, values in figures.items()},
        arrays={"blocks": tuple(blocks), "reconstructions": tuple(reconstructions), "spectrum": tuple(spectra)},
    )


def _quality(reconstruction: np.ndarray, truth: np.ndarray | None) -> dict[str, float]:
    """PSNR in decibels and SSIM, for a range of intensities of 1; nan where the truth is not known."""
    if truth is None:
        return {"psnr": float("nan"), "ssim": float("nan")}
    side = min(_SMALLEST_SSIM, *truth.shape[1:])
    with np.errstate(divide="ignore"):
        psnr = float(peak_signal_noise_ratio(truth, reconstruction, data_range=1.0))
    ssim = structural_similarity(truth, reconstruction, data_range=1.0, channel_axis=0, win_size=side - (side % 2 == 0))
    return {"psnr": psnr, "ssim": float(ssim)}
