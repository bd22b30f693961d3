"""Baselines that learn nothing, a mean and a few components, or what artefacts are like."""

from __future__ import annotations

from benchmarks.method import Entry

_HERE = "benchmarks.methods.simple"

ENTRIES: tuple[Entry, ...] = (
    Entry("brightness", "Smoothed brightness", "simple", f"{_HERE}:Brightness", "what is bright is abnormal"),
    Entry("mean_deviation", "Deviation from the mean image", "simple", f"{_HERE}:MeanDeviation", "in deviations"),
    Entry("blurred_residual", "Image less its median filter", "simple", f"{_HERE}:BlurredResidual", "smoothed"),
    Entry("pca", "PCA reconstruction", "simple", f"{_HERE}:PCAResidual", "64 components, residual smoothed"),
    Entry(
        "context",
        "Context, by planted artefacts",
        "simple",
        "benchmarks.methods.context:PlantedContext",
        "brightness, edges and noise, weighed as ours weigh their readings; no prior",
    ),
    Entry("png_size", "Size as PNG", "simple", f"{_HERE}:PNGSize", "bits a pixel; no map"),
    Entry("constant", "Constant", "simple", f"{_HERE}:Constant", "the same of everything"),
    Entry("random", "Random", "simple", f"{_HERE}:Random", "white noise"),
)
