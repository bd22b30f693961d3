"""KLIP fitted to healthy images: what it needs to say of a new image, or of a measurement, that it is not like them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from priorlens.body import body_region
from priorlens.errors import InputError, ModelError
from priorlens.held_out import evenly, hold_out, plant_each
from priorlens.image_prior import LARGEST_WHOLE, NO_HEAD, STEPS, WIDTH, ImagePrior, fit_image_prior, stages
from priorlens.images import Image
from priorlens.klip import KLIP, SIGMAS, WIDTHS
from priorlens.klip_folder import METHOD, Fitted, read_klip, write_klip
from priorlens.klip_rules import KLIP_RULES, KLIPRule, Learned, Seen, judge, learn, learned_facts, levels_within
from priorlens.klip_scores import Judged, judged, judged_by_reference, scores, steps_within
from priorlens.measurement.files import Measurement
from priorlens.measurement.operator import Operator
from priorlens.measurement.physics import PhysicsSpec, build, parse, simulate
from priorlens.outputs import prepare_folder
from priorlens.posterior.denoisers import POSTERIORS
from priorlens.posterior.reference import reference
from priorlens.preparation import Preparation, Sizes, as_image, healthy_images
from priorlens.prior import processes
from priorlens.prior.external import ExternalPrior, load_external
from priorlens.progress import Progress, Reporter
from priorlens.provenance import Provenance
from priorlens.scores import HealthyStatistics, Scores

IDENTITY = "identity"

REFERENCE_STEPS = 100
"""Of the recipe "reference", as published."""

SIZES = Sizes(32, 128, 16)
"""Of images, where none is asked for."""

_SETTINGS = ("size", "patch", "width", "prior", "steps", "intensity", "rule", "posterior", "variance_head", "seed")
_BITS, _QUALITY = ("kl_total", "kl_block"), ("psnr", "ssim")
_PIXELS_AT_ONCE, _IMAGES_AT_ONCE = 2**18, 16
_PIXELS_SEEN, _FEWEST_SEEN = 320 * 128**2, 24  # when what is usual is learned: a gigabyte of readings


class KLIPModel:
    """A diffusion prior of healthy images, and what its rules have learned of each measurement.

    size: side of the square at which images are seen; None is chosen from the data, at most 128.
    patch: side of the patches that the prior sees of larger images; None: whole images up to 128, else patches of that.
    width: channels of the prior's network at the finest resolution; 16 takes a third of the time of 32.
    prior: a folder of diffusers' or MONAI's, or a name on the hub; None: a prior is trained.
    steps: how long to train; None is `STEPS`.
    intensity: "range" where grey values mean the same in all images (CT), "percentile" where they do not.
    rule: one of `KLIP_RULES`; may be changed after fitting.
    posterior: one of `priorlens.posterior.denoisers.POSTERIORS`; may be set.
    variance_head: whether to learn it too, which the rule "standardised" needs and no other.
    simulated: False where real measurements are judged, of which it is not known what is usual; may be set.
    window, block: noise levels (lowest, highest) and side in pixels, in place of what rules have learned; may be set.
    """

    def __init__(
        self,
        *,
        size: int | None = None,
        patch: int | None = None,
        width: int = WIDTH,
        prior: Path | str | None = None,
        steps: int | None = None,
        intensity: Literal["range", "percentile"] = "range",
        rule: str = "combined",
        posterior: str = "diffpir",
        variance_head: bool = False,
        seed: int = 0,
        device: str | None = None,
    ) -> None:
        self.size = size
        self.patch = patch
        self.width = width
        self.prior = prior
        self.steps = STEPS if steps is None else steps
        self.intensity = intensity
        self.variance_head = variance_head
        self.seed = seed
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.rule = rule
        if posterior not in POSTERIORS:
            raise InputError(f"{posterior}: is no posterior; choose one of {', '.join(POSTERIORS)}")
        self.posterior = posterior
        self.simulated = True
        self.window: tuple[float, float] | None = None
        self.block: int | None = None
        self.learned_: dict[str, Learned] = {}
        self._operators: dict[str, Operator] = {}
        self.measure(IDENTITY)

    @property
    def rule(self) -> KLIPRule:
        return self._rule

    @rule.setter
    def rule(self, name: str) -> None:
        chosen = next((rule for rule in KLIP_RULES if rule == name), None)
        if chosen is None:
            raise InputError(f"{name}: is no rule of KLIP's; choose one of {', '.join(KLIP_RULES)}")
        self._rule: KLIPRule = chosen

    def measure(self, physics: str, noise: float = 0.0) -> None:
        """From now on images are measured so: simulated, with white noise of this deviation in the measurement's units.

        physics: such as "ct:views=24"; "identity", without noise, takes images as they are.

        Raises:
            InputError: an unknown physics, or a noise that is none.
        """
        spec = parse(physics)
        if not 0 <= noise < float("inf"):
            raise InputError(f"noise {noise:g}: is no standard deviation; give 0 or more")
        self.physics: PhysicsSpec = spec
        self.noise = noise if spec.noise is None else spec.noise

    def check(self) -> None:
        """Raises InputError where what was set suits no image, ModelError where the rule needs what was not learned."""
        if self.rule == "standardised" and not self.variance_head:
            raise ModelError(NO_HEAD)
        if self.window:
            by_steps = self.rule == "reference"
            steps_within(self.window, REFERENCE_STEPS) if by_steps else levels_within(self.window, SIGMAS)
        if self.simulated:
            self._operator()

    @property
    def measured_as_(self) -> str:
        """Physics and noise in one text, by which `learned_` is kept."""
        return f"{self.physics} noise={self.noise:g}" if self.noise else str(self.physics)

    @property
    def usual_of_(self) -> str:
        """The measurement whose healthy statistics are used: the present one if it was learned, else whole images."""
        return self.measured_as_ if self.measured_as_ in self.learned_ else IDENTITY

    def usual_like_(self, physics: str) -> str:
        """The same for a real measurement: one that was learned of the same sort ("ct", "mri"), the one that `measure`
        names if there are several; else whole images."""
        known = {text: text.partition(" ")[0] for text in self.learned_}
        alike = [text for text, spec in known.items() if spec.partition(":")[0] == physics.partition(":")[0]]
        return next((text for text in alike if known[text] == str(self.physics)), (*alike, IDENTITY)[0])

    @property
    def healthy_(self) -> HealthyStatistics | None:
        """Of the present rule and measurement; None where they were not learned, or what was learned is overruled."""
        learned = self.learned_.get(self.measured_as_)
        overruled = self.rule != "combined" and (self.window or self.block)
        return learned.statistics.get(self.rule) if learned and self.simulated and not overruled else None

    @property
    def figure_names_(self) -> tuple[str, ...]:
        """Of `Scores.figures`: bits of the whole image and of its largest block; what the reconstruction is worth."""
        return _BITS if self.measured_as_ == IDENTITY else (*_BITS, *_QUALITY)

    @property
    def tables_(self) -> dict[str, tuple[str, ...]]:
        """The arrays in `Scores.arrays` that are tables, a row a noise level, with their columns."""
        return {"spectrum": ("sigma", "bits", *(f"width_{width:g}" for width in WIDTHS))}

    @property
    def channels_(self) -> int:
        return self.preparation_.channels

    def fit(
        self,
        images: Sequence[Image | np.ndarray],
        *,
        groups: Sequence[str] | None = None,
        physics: Sequence[str] = (),
        noise: float = 0.0,
        state: Path | None = None,
        on_progress: Callable[[Progress], None] | None = None,
        batch: int | None = None,
        accumulate: int = 1,
    ) -> KLIPModel:
        """Learn what healthy images look like, and what is usual in whole images and in measurements of them.

        groups: the patient of each image; none is cut in two when some are held out.
        physics, noise: measurements to learn, beside whole images.
        state: folder for the unfinished training. The same call with the same `state` goes on where it was.
        batch, accumulate: as of `fit_image_prior`. Of several processes the first alone learns what is usual.

        Raises:
            InputError: fewer than 8 images, of one patient, unlike each other in colour or bit depth, or of a size that
                prior or physics do not fit.
            ModelError, WeightsError: the prior cannot be had. ModelError, OutputError: `state` cannot be used.
        """
        named = healthy_images(images, groups)
        if state:
            prepare_folder(state, overwrite=True)  # now, and not after minutes of training
        external = load_external(self.prior) if self.prior else None
        self.preparation_ = self._prepared_for(named, external)
        self._operators = {}  # of an earlier fit's size
        self.prior_ = self._new_prior(external)
        measurements = [(IDENTITY, 0.0), *((text, noise) for text in physics)]
        for measurement in measurements:
            self.measure(*measurement)
            self._operator()  # one that does not fit is told now as well
        kept, held = hold_out(groups or [str(i) for i in range(len(named))], self.seed)
        held = evenly(held, self._most_seen)
        healthy = self.preparation_.to_model([named[i] for i in held])
        planted, masks = self._planted(healthy)
        looks = len(measurements)
        counts = {"held-out images": looks * len(held), "planted artefacts": looks * len(planted)}
        to_train = dict(stages(self.steps, external=bool(external), head=self.variance_head))
        report = Reporter(on_progress, counts, sum(to_train.values()))
        learn_prior = partial(fit_image_prior, steps=self.steps, seed=self.seed, batch=batch, accumulate=accumulate)
        learn_prior(self.prior_, self.preparation_.to_model([named[i] for i in kept]), state=state, on_step=report)
        self.learned_ = {}
        for measurement in measurements if processes.first() else []:
            self.measure(*measurement)
            seen = self._see(healthy, partial(report.images, "held-out images"))
            changed = self._see(planted, partial(report.images, "planted artefacts"))
            self.learned_[self.measured_as_] = learn(seen, changed, masks, self.seed)
        self.measure(IDENTITY)
        patients = len(set(groups)) if groups else len(named)
        self.trained_on_ = {"images": len(kept), "held_out": len(held), "patients": patients}
        self.provenance_ = Provenance.of(named, groups)
        return self

    def score(self, images: Sequence[Image | np.ndarray]) -> Scores:
        """What the present rule says of images, measured as `measure` was told.

        Figures: bits by which posterior and prior differ, of the whole image and of its largest block; PSNR in decibels
        and SSIM of the reconstruction. Arrays: bits of each block, the reconstruction, and the spectrum (`tables_`):
        bits of each noise level, and at each width the bits by which coherent drift exceeds that of healthy images.

        Raises:
            InputError: an image unlike the healthy ones in form; a physics that images of this size do not fit.
        """
        named = [as_image(image, index) for index, image in enumerate(images)]
        operator, batches, truth = self._operator(), [], []
        for start in range(0, len(named), self._at_once):
            x = self.preparation_.to_model(named[start : start + self._at_once])
            batches.append(self._judged(operator, self._measured(operator, x), self.noise, self.usual_of_))
            truth.append(x)
        known = torch.cat(truth) if operator is not None and truth else None
        return scores(batches, named, known, self.preparation_, self._block(self.usual_of_), self.figure_names_)

    def score_measurement(self, measurement: Measurement) -> tuple[Image, Scores]:
        """What the present rule says of a real measurement, and its reconstruction, of intensities in about [0, 1].

        Raises:
            InputError: the measurement is of images of another shape than the model's.
        """
        shape = measurement.operator.shape
        if shape != self._shape:
            raise InputError(f"{measurement.path}: measures images of shape {shape}, the model has {self._shape}")
        operator = measurement.operator.to(self.device)
        usual = self.usual_like_(str(measurement.note["physics"]))
        found = self._judged(operator, measurement.y.to(self.device), measurement.noise, usual)
        told = scores([found], None, None, self.preparation_, self._block(usual), (*_BITS, *_QUALITY))
        return Image(told.arrays["reconstructions"][0], measurement.path, float("nan")), told

    def save(self, folder: Path, *, facts: Mapping[str, Any] | None = None) -> None:
        """Write the model's folder; `facts` (whence the images, ...) go into its config. Raises OutputError."""
        settings = {name: getattr(self, name) for name in _SETTINGS} | {"prior": self.prior and Path(self.prior).name}
        learned = (self.learned_, self.trained_on_, self.provenance_)
        write_klip(folder, Fitted(settings, self.preparation_, self.prior_, *learned), facts or {})

    @classmethod
    def load(cls, folder: Path, *, device: str | None = None) -> KLIPModel:
        """Read a model's folder.

        Raises:
            ModelError: it is missing, truncated, foreign, of another method, or newer.
            WeightsError: the library its prior comes from is not installed.
        """
        found = read_klip(folder)
        try:
            model = cls(**found.settings, device=device)
        except (InputError, TypeError) as error:
            raise ModelError(f"{folder}: its settings are not those of a KLIP model; fit again") from error
        model.preparation_, model.learned_ = found.preparation, found.learned
        model.trained_on_, model.provenance_ = found.trained_on, found.provenance
        model.prior_ = found.prior.to(model.device)
        return model

    def describe(self) -> dict[str, Any]:
        """What was learned, on what, and how large it is: plain data for JSON."""
        external = self.prior_.external
        return {
            "method": METHOD,
            "rule": self.rule,
            "prior": {**external.facts} if external else "trained here",
            "size": self.preparation_.size,
            "patch": self.prior_.patch,
            "channels": self.channels_,
            "intensity": dataclasses.asdict(self.preparation_.intensity),
            "steps": 0 if external and not self.variance_head else self.steps,
            "seed": self.seed,
            "trained_on": self.trained_on_,
            "parameters": self.prior_.parameters(),
            **learned_facts(self.learned_),
        }

    # What follows is how the above is done.

    @property
    def _shape(self) -> tuple[int, int, int]:
        return (self.channels_, self.preparation_.size, self.preparation_.size)

    def _block(self, usual: str) -> int:
        """Of the bits that are told of each image, whatever the rule."""
        return self.block or self.learned_[usual].windows["squares"].block

    @property
    def _at_once(self) -> int:
        return max(1, min(_IMAGES_AT_ONCE, _PIXELS_AT_ONCE // self.preparation_.size**2))

    def _prepared_for(self, images: Sequence[Image], external: ExternalPrior | None) -> Preparation:
        size = self.size or (max(external.size) if external and external.size else None)
        sizes = replace(SIZES, multiple=external.multiple) if external else SIZES
        preparation = Preparation.fit(images, size, self.intensity, sizes)
        if external and external.channels != preparation.channels:
            raise InputError(
                f"{self.prior}: is a prior of {external.channels} channels, the images have {preparation.channels}; "
                "convert the images or choose another prior"
            )
        return preparation

    def _new_prior(self, external: ExternalPrior | None) -> ImagePrior:
        size = self.preparation_.size
        patch = self.patch or (LARGEST_WHOLE if size > LARGEST_WHOLE and not external else None)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)  # initial weights
            made = ImagePrior(self.channels_, patch=patch, external=external, width=self.width, head=self.variance_head)
        return made.to(self.device)

    def _operator(self) -> Operator | None:
        """Of the present physics; None where images are taken as they are."""
        text = str(self.physics)
        if text == IDENTITY and not self.noise:
            return None
        if text not in self._operators:
            self._operators = {text: build(self.physics, self._shape, self.seed).to(self.device)}  # one: they are large
        return self._operators[text]

    def _measured(
        self, operator: Operator | None, x: Float[Tensor, "image channel side side"]
    ) -> Float[Tensor, "image *measurement"]:
        x = x.to(self.device)
        return x if operator is None else simulate(operator, x, self.noise, self.seed)

    def _judged(
        self, operator: Operator | None, y: Float[Tensor, "image *measurement"], noise: float, usual: str
    ) -> Judged:
        """What the present rule says of a batch of measurements, by the healthy statistics of `usual`."""
        if self.rule == "reference":
            known = operator or build(parse(IDENTITY), self._shape).to(self.device)
            return self._by_reference(known, y, self._block(usual))
        variance = self.prior_.variance if self.rule == "standardised" else None
        klip = KLIP(self.prior_, operator, noise=noise, variance=variance, posterior=self.posterior, seed=self.seed)
        found = klip.score(y)
        seen, learned = Seen.of(found), self.learned_[usual].within(self.window, self.block)
        return judged(found, seen, learned, judge(self.rule, learned, seen))

    def _by_reference(self, operator: Operator, y: Float[Tensor, "image *measurement"], block: int) -> Judged:
        """The published recipe; a window of noise levels is one of its steps."""
        steps = steps_within(self.window, REFERENCE_STEPS) if self.window else None
        generator = torch.Generator().manual_seed(self.seed)
        denoiser = self.prior_.denoiser
        found = reference(denoiser, operator, y, steps=REFERENCE_STEPS, window=steps, block=block, generator=generator)
        return judged_by_reference(found, len(WIDTHS))

    @property
    def _most_seen(self) -> int:
        """Images, untouched and planted each, from which what is usual is learned: as memory allows."""
        return max(_FEWEST_SEEN, _PIXELS_SEEN // self.preparation_.size**2)

    def _planted(self, healthy: Float[Tensor, "image channel side side"]) -> tuple[Tensor, Tensor]:
        """Some of the images with artefacts in them, and where these lie."""
        images, masks, _ = plant_each(healthy.numpy(), np.random.default_rng(self.seed), body_region)
        if not images:
            raise InputError("no artefact can be planted in the healthy images; are they nearly empty?")
        chosen = evenly(range(len(images)), self._most_seen)
        changed, where = (torch.from_numpy(np.stack([array[i] for i in chosen])) for array in (images, masks))
        return changed, where

    def _see(self, x: Float[Tensor, "image channel side side"], report: Callable[[int], None]) -> Seen:
        """What rules read of images, in batches."""
        operator, parts = self._operator(), []
        klip = KLIP(self.prior_, operator, noise=self.noise, posterior=self.posterior, seed=self.seed)
        for batch in x.split(self._at_once):
            parts.append(Seen.of(klip.score(self._measured(operator, batch))))
            report(len(batch))
        return Seen.joined(parts)
