"""AnoDODE: how rare an image's features are among healthy ones, and where (Hu & Jin 2023, arXiv 2310.06420)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from priorlens.checkpoint import read_checkpoint, under, versions, write_checkpoint
from priorlens.combination import Combination, Readings, fit_combination, join, readings, with_context
from priorlens.errors import InputError, ModelError
from priorlens.feature_prior import FeaturePrior, fit_feature_prior, total_steps
from priorlens.features import DEFAULT_BACKBONE, empty_pyramid, load_pyramid
from priorlens.held_out import PLANTED_MANY, evenly, folds, hold_out, plant_each, planted_count
from priorlens.images import Image
from priorlens.outputs import prepare_folder
from priorlens.preparation import Preparation, as_image, healthy_images
from priorlens.prior import processes
from priorlens.progress import Progress, Reporter
from priorlens.provenance import Provenance
from priorlens.rules import RULES, HealthyScale, Rule, Verdict, from_surprise, healthy_scale, published
from priorlens.scores import HealthyStatistics, Scores
from priorlens.surprise import SIGMAS, WIDTHS, Surprise
from priorlens.weighing import CONTEXT_NAMES

METHOD = "anodode"
STEPS = 1000
MAP = "members"
"""How the map of rule "combined" is made (`combination`): a folder that says otherwise, or nothing, is refused."""

SPECTRUM = ("stride", "sigma", "standardised", *(f"width_{width:g}" for width in WIDTHS))
"""Columns of `AnoDODE.tables_`: stride of the features in pixels of the model's size, noise level, and bits."""

_FEATURE_BATCH, _SCORE_BATCH = 32, 16
_PUBLISHED = 32  # held-out images, at most, that the slow published rule is asked about


class AnoDODE:
    """Diffusion priors of healthy features at several scales, and what they say of new images.

    size: side of the square at which images are seen, a multiple of 32; None is chosen from the data.
    backbone, weights: a timm name, and its weights as a safetensors file (None: installed, or from timm's hub).
    zooms: sizes of the input relative to `size`; each gives a pyramid of its own.
    steps: how long to train; None is 1000.
    intensity: "range" where grey values mean the same in all images (CT), "percentile" where they do not.
    rule: one of `RULES`; may be changed after fitting, for every rule reads the same priors.
    device: of torch; None is CUDA where present.
    """

    def __init__(
        self,
        *,
        size: int | None = None,
        backbone: str = DEFAULT_BACKBONE,
        weights: Path | None = None,
        zooms: Sequence[float] = (1.0,),
        steps: int | None = None,
        intensity: Literal["range", "percentile"] = "range",
        rule: str = "combined",
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.size = size
        self.backbone = backbone
        self.weights = weights
        self.zooms = tuple(float(zoom) for zoom in zooms)
        self.steps = STEPS if steps is None else steps
        self.intensity = intensity
        self.rule = rule
        self.seed = seed
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    @property
    def rule(self) -> Rule:
        return self._rule

    @rule.setter
    def rule(self, name: str) -> None:
        chosen = next((rule for rule in RULES if rule == name), None)
        if chosen is None:
            raise InputError(f"{name}: is no rule; choose one of {', '.join(RULES)}")
        self._rule: Rule = chosen

    @property
    def figure_names_(self) -> tuple[str, ...]:
        """Of `Scores.figures`: each scale, whose bits per feature dimension they are; these may be negative."""
        return tuple(self.priors_)

    @property
    def tables_(self) -> dict[str, tuple[str, ...]]:
        """The arrays in `Scores.arrays` that are tables, a row a scale and noise level, with their columns."""
        return {} if self.rule == "published" else {"spectrum": SPECTRUM}

    @property
    def channels_(self) -> int:
        return self.preparation_.channels

    @property
    def healthy_(self) -> HealthyStatistics:
        """Of the present rule."""
        return self.statistics_[self.rule]

    def fit(
        self,
        images: Sequence[Image | np.ndarray],
        *,
        groups: Sequence[str] | None = None,
        state: Path | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        batch: int | None = None,
        accumulate: int = 1,
    ) -> AnoDODE:
        """Learn what healthy images look like.

        groups: the patient of each image; none is cut in two when some are held out.
        state: folder for the unfinished training. The same call with the same `state` goes on where it was.
        batch: images in a training step; None is 16. accumulate: in how many pieces a step is done, to save memory.

        Of several processes (`priorlens.prior.processes`) all learn the priors, and the first alone what is usual.

        Raises:
            InputError: fewer than 8 images, of one patient, or unlike each other in colour or bit depth.
            WeightsError: the backbone cannot be had. ModelError, OutputError: `state` cannot be used.
        """
        named = healthy_images(images, groups)
        if state:
            prepare_folder(state, overwrite=True)  # now, and not after minutes of training
        pyramid = load_pyramid(self.backbone, weights=self.weights, zooms=self.zooms).to(self.device)
        whose = groups or [str(i) for i in range(len(named))]
        kept, held = hold_out(whose, self.seed)
        self.preparation_ = Preparation.fit(named, self.size, self.intensity)
        self.pyramid_ = pyramid
        artefacts = planted_count(len(held), PLANTED_MANY)
        stages = {"features": len(kept), "held-out images": len(held), "planted artefacts": artefacts}
        report = Reporter(on_progress, stages, total_steps(pyramid.scales, self.steps))
        features = self._features_of(named, kept, report)
        self.priors_ = {
            scale.name: fit_feature_prior(
                scale,
                features.pop(scale.name),
                steps=self.steps,
                seed=self.seed,
                device=self.device,
                state=state,
                on_step=report,
                batch=batch,
                accumulate=accumulate,
            )
            for scale in pyramid.scales
        }
        if processes.first():
            own = torch.tensor(folds([whose[i] for i in held]))
            self._learn_what_is_usual([named[i] for i in held], own, report)
        self.trained_on_ = {"images": len(kept), "held_out": len(held), "patients": len(set(whose))}
        self.provenance_ = Provenance.of(named, groups)
        return self

    def score(self, images: Sequence[Image | np.ndarray]) -> Scores:
        """What the present rule says of images; figures are bits/dim of each scale.

        Anomaly is in bits above what healthy images show (rules "combined", "typicality": in deviations of theirs;
        "published": bits per dimension). The array "spectrum" (`tables_`; not of rule "published") holds for each scale
        and noise level, and at each width, the bits by which the mean surprise of the image exceeds that of healthy
        ones.

        Raises InputError for an image unlike the healthy ones in form.
        """
        named = [as_image(image, index) for index, image in enumerate(images)]
        anomaly, maps, bits, spectra, nfe = [], [], [], [], 0
        for start in range(0, len(named), _SCORE_BATCH):
            batch = named[start : start + _SCORE_BATCH]
            verdict, bits_of, spectrum, nfe = self._judge(self.preparation_.to_model(batch), self.rule)
            anomaly.append(verdict.anomaly)
            bits.append(torch.stack(list(bits_of.values()), 1))
            spectra += list(spectrum.numpy()) if spectrum is not None else []
            square = self._enlarged(verdict.anomaly_map)
            maps += [self.preparation_.from_model(m, image) for m, image in zip(square, batch, strict=True)]
        by_scale = torch.cat(bits).numpy().astype(np.float32) if bits else np.zeros((0, len(self.priors_)), np.float32)
        return Scores(
            anomaly=torch.cat(anomaly).numpy().astype(np.float32) if anomaly else np.zeros(0, np.float32),
            anomaly_map=tuple(maps),
            nfe=nfe,
            figures=dict(zip(self.figure_names_, by_scale.T, strict=True)),
            arrays={name: tuple(spectra) for name in self.tables_},
        )

    def save(self, folder: Path, *, facts: Mapping[str, Any] | None = None) -> None:
        """Write the model's folder; `facts` (whence the images, ...) go into its config. Raises OutputError."""
        tensors = {f"backbone.{name}": value for name, value in self.pyramid_.backbone.state_dict().items()}
        for scale, prior in self.priors_.items():
            tensors |= {f"{scale}.{name}": value for name, value in prior.tensors().items()}
        combination = self.combination_
        tensors |= {f"combination.{name}": value for name, value in combination.tensors().items()}
        tensors |= self.provenance_.tensors()
        config = {
            "method": METHOD,
            **(facts or {}),
            "settings": {
                "size": self.size,
                "backbone": self.backbone,
                "weights": self.weights.name if self.weights else None,
                "zooms": self.zooms,
                "steps": self.steps,
                "intensity": self.intensity,
                "rule": self.rule,
                "seed": self.seed,
            },
            "preparation": dataclasses.asdict(self.preparation_),
            "trained_on": self.trained_on_,
            "map": MAP,
            "share": combination.share,
            "healthy": {rule: dataclasses.asdict(found) for rule, found in self.statistics_.items()},
            "healthy_scales": {scale: dataclasses.asdict(found) for scale, found in self.healthy_scales_.items()},
            "versions": versions(),
        }
        write_checkpoint(folder, tensors, config)

    @classmethod
    def load(cls, folder: Path, *, device: str | None = None) -> AnoDODE:
        """Read a model's folder.

        Raises:
            ModelError: it is missing, truncated, foreign, of another method, or newer.
            WeightsError: the installed timm does not know its backbone.
        """
        tensors, config = read_checkpoint(folder)
        if config["method"] != METHOD:
            raise ModelError(f"{folder}: holds a model of method {config['method']!r}, not {METHOD!r}; fit again")
        if "settings" in config and config.get("map") != MAP:
            raise ModelError(f"{folder}: was fitted when rule combined made its map in another way; fit again")
        try:
            return cls._restored(tensors, config, device)
        except (InputError, AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"{folder}: its config and its tensors do not belong together; fit again") from error

    @classmethod
    def _restored(cls, tensors: dict[str, Tensor], config: dict[str, Any], device: str | None) -> AnoDODE:
        settings = dict(config["settings"])
        weights = settings.pop("weights")
        detector = cls(**settings, weights=Path(weights) if weights else None, device=device)
        detector.preparation_ = Preparation.restored(config["preparation"])
        detector.pyramid_ = empty_pyramid(detector.backbone, detector.zooms)
        detector.pyramid_.backbone.load_state_dict(under("backbone", tensors))
        detector.pyramid_.to(detector.device)
        detector.priors_ = {
            scale.name: FeaturePrior.from_tensors(scale, under(scale.name, tensors)).to(detector.device)
            for scale in detector.pyramid_.scales
        }
        learned = under("combination", tensors)
        detector.combination_ = Combination.restored(list(detector.priors_), learned, float(config["share"]))
        detector.statistics_ = {rule: HealthyStatistics(**found) for rule, found in config["healthy"].items()}
        detector.healthy_scales_ = {scale: HealthyScale(**found) for scale, found in config["healthy_scales"].items()}
        detector.trained_on_ = dict(config["trained_on"])
        detector.provenance_ = Provenance.restored(tensors)
        return detector

    def describe(self) -> dict[str, Any]:
        """What was learned, on what, and how large it is: plain data for JSON."""
        sizes = {
            name: sum(p.numel() for module in (prior.denoiser, prior.variance) for p in module.parameters())
            for name, prior in self.priors_.items()
        }
        return {
            "method": METHOD,
            "rule": self.rule,
            "backbone": self.backbone,
            "size": self.preparation_.size,
            "channels": self.channels_,
            "intensity": dataclasses.asdict(self.preparation_.intensity),
            "steps": self.steps,
            "seed": self.seed,
            "trained_on": self.trained_on_,
            "parameters": sizes,
            "healthy": {rule: dataclasses.asdict(found) for rule, found in self.statistics_.items()},
            "healthy_scales": {scale: dataclasses.asdict(found) for scale, found in self.healthy_scales_.items()},
        }

    # What follows is how the above is done.

    @property
    def _side(self) -> int:
        """Of the common grid: two positions for one of the finest features."""
        return self.preparation_.size // 4

    def _features(self, prepared: Float[Tensor, "image channel size size"]) -> dict[str, Tensor]:
        levels = self.pyramid_(prepared.to(self.device))
        return {scale.name: level for scale, level in zip(self.pyramid_.scales, levels, strict=True)}

    def _features_of(self, images: Sequence[Image], chosen: Sequence[int], report: Reporter) -> dict[str, Tensor]:
        """Features of the chosen images, in half precision: they all stay in memory."""

        def of_batch(batch: Sequence[int]) -> dict[str, Tensor]:
            found = self._features(self.preparation_.to_model([images[i] for i in batch]))
            return {name: level.half().cpu() for name, level in found.items()}

        batches = list(_batches(chosen, _FEATURE_BATCH))
        parts = processes.shared_out(batches, of_batch, lambda batch: report.images("features", len(batch)))
        joined = {scale.name: torch.cat([part.pop(scale.name) for part in parts]) for scale in self.pyramid_.scales}
        return {name: level.contiguous(memory_format=torch.channels_last) for name, level in joined.items()}

    def _surprises(self, prepared: Float[Tensor, "image channel size size"]) -> dict[str, Surprise]:
        features = self._features(prepared)
        return {name: prior.surprise(features[name], self.seed) for name, prior in self.priors_.items()}

    def _judge(
        self, prepared: Float[Tensor, "image channel size size"], rule: Rule
    ) -> tuple[Verdict, dict[str, Tensor], Tensor | None, int]:
        """A rule's verdict, bits/dim of each scale, the spectrum, and network evaluations."""
        if rule == "published":
            features = self._features(prepared)
            verdict, bits, nfe = published(self.priors_, self.healthy_scales_, features, self._side, self.seed)
            return verdict, bits, None, nfe
        surprises = self._surprises(prepared)
        found = self._read(surprises, prepared)
        bits = {name: surprise.bits_per_dim for name, surprise in surprises.items()}
        spectrum = self._spectrum(found.means - self.combination_.usual)
        nfe = sum(surprise.nfe for surprise in surprises.values())
        return self._verdict(rule, surprises, found), bits, spectrum, nfe

    def _read(self, surprises: dict[str, Surprise], prepared: Float[Tensor, "image channel size size"]) -> Readings:
        return with_context(readings(surprises, self._side), prepared)

    def _spectrum(self, above: Float[Tensor, "image reading"]) -> Float[Tensor, "image row column"]:
        """Readings above what is usual, in the columns of `SPECTRUM`; of `expected` and the context, which are no
        surprise, none."""
        scales = self.pyramid_.scales
        by_scale = above[:, : -len(CONTEXT_NAMES)].unflatten(1, (len(scales), -1))
        standardised, coherent = by_scale[..., : len(SIGMAS), None], by_scale[..., 2 * len(SIGMAS) :]
        strides = torch.tensor([scale.stride / scale.zoom for scale in scales])
        keys = torch.cartesian_prod(strides, torch.tensor(SIGMAS)).unflatten(0, (len(scales), -1))
        widths = coherent.unflatten(2, (len(SIGMAS), -1))
        return torch.cat([keys.expand(len(above), -1, -1, -1), standardised, widths], 3).flatten(1, 2)

    def _verdict(
        self, rule: Rule, surprises: dict[str, Surprise], found: Readings, local: Tensor | None = None
    ) -> Verdict:
        usual = {name: (known.anomaly_mean, known.anomaly_std) for name, known in self.statistics_.items()}
        return from_surprise(rule, self.combination_, self.healthy_scales_, surprises, found, usual, local)

    def _enlarged(self, maps: Float[Tensor, "image side side"]) -> Float32[np.ndarray, "image size size"]:
        size = (self.preparation_.size, self.preparation_.size)
        return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0].numpy()

    def _learn_what_is_usual(self, held: Sequence[Image], own: Int[Tensor, " image"], report: Reporter) -> None:
        """Statistics and weights from held-out healthy images, and from these with artefacts planted in them.

        own: the fold of each image.
        """
        prepared = self.preparation_.to_model(held)
        surprises, found = [], []
        for batch in prepared.split(_SCORE_BATCH):
            surprises.append(self._surprises(batch))
            found.append(self._read(surprises[-1], batch))
            report.images("held-out images", len(batch))
        some = prepared[evenly(range(len(prepared)), _PUBLISHED)]
        features = self._features(some)
        self.healthy_scales_ = {
            name: healthy_scale([of_batch[name] for of_batch in surprises], prior.residual(features[name])[0])
            for name, prior in self.priors_.items()
        }
        planted, masks, sources = self._planted(prepared.numpy(), report)
        self.combination_, local = fit_combination(join(found), planted, masks, (own, own[sources]), self.seed)
        self.statistics_ = {"published": _statistics([self._judge(some, "published")[0]])}
        for rule in sorted(RULES[:-1], key=lambda rule: rule == "combined"):  # last: it is relative to others
            batches = zip(surprises, found, local.split(_SCORE_BATCH), strict=True)
            self.statistics_[rule] = _statistics([self._verdict(rule, *of_batch) for of_batch in batches])

    def _planted(
        self, prepared: Float32[np.ndarray, "image channel size size"], report: Reporter
    ) -> tuple[Readings, Bool[Tensor, "artefact side side"], Int[Tensor, " artefact"]]:
        """Readings of held-out images with one artefact each, where it lies on the common grid, and in which image."""
        images, masks, sources = plant_each(prepared, np.random.default_rng([self.seed, 1]), many=PLANTED_MANY)
        if not images:
            raise InputError("no artefact could be planted in the held-out healthy images; are they nearly empty?")
        found = []
        for batch in torch.from_numpy(np.stack(images)).split(_SCORE_BATCH):
            read = self._read(self._surprises(batch), batch)
            found.append(dataclasses.replace(read, maps=read.maps.half()))  # hundreds of them stay in memory
            report.images("planted artefacts", len(batch))
        share = F.interpolate(torch.from_numpy(np.stack(masks))[:, None].float(), size=(self._side,) * 2, mode="area")
        return join(found), share[:, 0] > 0.5, torch.tensor(sources)


def _statistics(verdicts: Sequence[Verdict]) -> HealthyStatistics:
    return HealthyStatistics.of(
        torch.cat([verdict.anomaly for verdict in verdicts]).numpy(),
        torch.cat([verdict.anomaly_map for verdict in verdicts]).numpy(),
    )


def _batches(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
