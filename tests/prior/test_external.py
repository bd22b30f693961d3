"""Priors in the folders of other libraries: saved by the library, read here, and equal to what it would predict."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from priorlens.errors import ModelError, WeightsError
from priorlens.prior import libraries
from priorlens.prior.denoiser import Denoiser
from priorlens.prior.external import ExternalPrior, empty_external, load_external

diffusers = pytest.importorskip("diffusers")
monai_nets = pytest.importorskip("monai.networks.nets")
monai_schedulers = pytest.importorskip("monai.networks.schedulers")

STEPS = (0, 1, 10, 250, 500, 750, 999)
UNET = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (4, 8),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 2,
    "attention_head_dim": 4,
}
MONAI = {
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "num_res_blocks": 1,
    "channels": [4, 8, 8],
    "attention_levels": [False, False, True],
    "norm_num_groups": 2,
    "num_head_channels": 4,
}


def x_t(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def save_pipeline(folder: Path, unet: dict | None = None, scheduler: str = "DDPMScheduler", **options):
    torch.manual_seed(0)
    net = diffusers.UNet2DModel(**UNET | (unet or {})).eval()
    schedule = getattr(diffusers, scheduler)(**{"clip_sample": False} | options)
    diffusers.DDPMPipeline(net, schedule).save_pretrained(folder)
    return net, schedule


def save_monai(
    folder: Path, network: dict | None = None, *, tensors: str = "model.safetensors", units=None, **schedule
):
    folder.mkdir()
    torch.manual_seed(0)
    config = {"network": MONAI | (network or {}), "scheduler": {"clip_sample": False} | schedule}
    net = monai_nets.DiffusionModelUNet(**config["network"]).eval()
    with torch.no_grad():  # MONAI's last layer begins at zero: an untrained network would predict nothing
        for parameter in net.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    if tensors == "model.pt":
        torch.save(net.state_dict(), folder / tensors)
    else:
        save_file(net.state_dict(), folder / tensors)
    (folder / "config.json").write_text(json.dumps(config | ({"range": units} if units else {})))
    return net, monai_schedulers.DDPMScheduler(**config["scheduler"])


@torch.no_grad()
def assert_native(prior: ExternalPrior, net, scheduler, predicted, shape: tuple[int, ...], steps=STEPS) -> None:
    """At the noise level of each step, the denoiser is what the library's own scheduler takes for the clean image."""
    for t in steps:
        signal = scheduler.alphas_cumprod[t].double()
        z = x_t(2, *shape, seed=t)
        sigma, alpha = math.sqrt((1 - signal) / signal), math.sqrt(signal)
        expected = predicted(net(z, torch.full((2,), t)), z, t)
        found = prior.denoiser((z.double() / alpha).float(), torch.full((2,), sigma))
        # A predicted eps counts sigma times in x: so do float32's rounding errors.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * max(1.0, sigma), msg=f"step {t}")


def native_diffusers(scheduler):
    def predicted(out, z, t):
        scheduler.set_timesteps(scheduler.config.num_train_timesteps)
        return scheduler.step(out.sample, t, z, generator=torch.Generator()).pred_original_sample

    return predicted


def native_monai(scheduler):
    return lambda out, z, t: scheduler.step(out, t, z)[1]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_diffusers_prediction_is_the_native_one(tmp_path, prediction, schedule):
    net, scheduler = save_pipeline(tmp_path, prediction_type=prediction, beta_schedule=schedule)
    prior = load_external(tmp_path)
    assert (prior.channels, prior.size, prior.multiple) == (1, (8, 8), 2)
    assert isinstance(prior.denoiser, Denoiser)
    assert_native(prior, net, scheduler, native_diffusers(scheduler), (1, 8, 8))


def test_diffusers_float64_agrees_at_every_level(tmp_path):
    """Without rounding errors in the network: 1e-5 everywhere, which its own float32 table of signal allows."""
    net, scheduler = save_pipeline(tmp_path)
    prior = load_external(tmp_path)
    net.double()
    prior.denoiser.double()
    for t in STEPS:
        signal, z = scheduler.alphas_cumprod[t].double(), x_t(1, 1, 8, 8, seed=t).double()
        with torch.no_grad():
            eps = net(z, t).sample
            found = prior.denoiser(z / signal.sqrt(), ((1 - signal) / signal).sqrt().reshape(1))
        torch.testing.assert_close(found, (z - (1 - signal).sqrt() * eps) / signal.sqrt(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "PNDMScheduler", "DPMSolverMultistepScheduler"])
def test_any_scheduler_of_ddpms_kind_will_do(tmp_path, scheduler):
    net, schedule = save_pipeline(tmp_path, trained_betas=[0.01, 0.1, 0.3], num_train_timesteps=3)
    getattr(diffusers, scheduler).from_config(schedule.config).save_pretrained(tmp_path / "scheduler")
    prior = load_external(str(tmp_path))
    assert prior.facts["scheduler_class"] == scheduler
    assert_native(prior, net, schedule, native_diffusers(schedule), (1, 8, 8), steps=(0, 1, 2))


def test_clipping_and_thresholding_are_left_to_samplers(tmp_path):
    net, _ = save_pipeline(tmp_path, clip_sample=True, thresholding=True)
    plain = diffusers.DDPMScheduler(clip_sample=False)
    assert_native(load_external(tmp_path), net, plain, native_diffusers(plain), (1, 8, 8))


def test_configs_side_by_side(tmp_path):
    net, scheduler = save_pipeline(tmp_path / "pipeline")
    side = tmp_path / "side"
    shutil.copytree(tmp_path / "pipeline" / "unet", side)
    shutil.copy(tmp_path / "pipeline" / "scheduler" / "scheduler_config.json", side)
    assert_native(load_external(side), net, scheduler, native_diffusers(scheduler), (1, 8, 8))


def test_a_learned_variance_is_left_out(tmp_path):
    net, scheduler = save_pipeline(tmp_path, {"out_channels": 2}, variance_type="learned_range")
    prior = load_external(tmp_path)
    assert prior.channels == 1
    assert_native(prior, net, scheduler, native_diffusers(scheduler), (1, 8, 8))


def test_learned_times_are_whole_steps(tmp_path):
    learned = {"time_embedding_type": "learned", "num_train_timesteps": 1000}
    net, scheduler = save_pipeline(tmp_path, learned)
    prior = load_external(tmp_path)
    prior.denoiser(x_t(2, 1, 8, 8), torch.tensor([0.3, 1.234]))
    assert_native(prior, net, scheduler, native_diffusers(scheduler), (1, 8, 8))


def test_zero_terminal_snr(tmp_path):
    net, scheduler = save_pipeline(tmp_path, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    assert scheduler.alphas_cumprod[-1] == 0
    assert_native(load_external(tmp_path), net, scheduler, native_diffusers(scheduler), (1, 8, 8), STEPS[:-1])


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("tensors", ["model.safetensors", "model.pt"])
def test_monai_prediction_is_the_native_one(tmp_path, prediction, tensors):
    net, scheduler = save_monai(tmp_path / "prior", prediction_type=prediction, tensors=tensors)
    prior = load_external(tmp_path / "prior")
    assert (prior.channels, prior.size, prior.multiple) == (1, None, 4)
    assert_native(prior, net, scheduler, native_monai(scheduler), (1, 8, 12))


@pytest.mark.parametrize("schedule", ["scaled_linear_beta", "sigmoid_beta", "cosine"])
def test_monai_schedules(tmp_path, schedule):
    net, scheduler = save_monai(tmp_path / "prior", schedule=schedule, num_train_timesteps=200)
    prior = load_external(tmp_path / "prior")
    assert_native(prior, net, scheduler, native_monai(scheduler), (1, 8, 8), steps=(0, 1, 77, 180))


def test_monai_in_three_dimensions(tmp_path):
    net, scheduler = save_monai(tmp_path / "prior", {"spatial_dims": 3})
    assert_native(load_external(tmp_path / "prior"), net, scheduler, native_monai(scheduler), (1, 4, 4, 8), (10, 500))


def test_images_of_another_range(tmp_path):
    """A network of images in [0, 1] is a denoiser of images in [-1, 1] all the same."""
    net, scheduler = save_monai(tmp_path / "prior", units=[0, 1])
    prior, native = load_external(tmp_path / "prior"), native_monai(scheduler)
    t, z = 300, x_t(1, 1, 8, 8)
    signal = scheduler.alphas_cumprod[t].double()
    with torch.no_grad():
        expected = 2 * native(net(z, torch.tensor([t])), z, t) - 1
        found = prior.denoiser(2 * z / float(signal.sqrt()) - 1, 2 * ((1 - signal) / signal).sqrt().float().reshape(1))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_a_network_that_centres_its_input_was_trained_on_images_from_zero_to_one(tmp_path):
    save_pipeline(tmp_path, {"center_input_sample": True})
    assert load_external(tmp_path).facts["range"] == [0, 1]


@pytest.mark.parametrize("save", [save_pipeline, save_monai])
def test_facts_are_enough_to_make_it_again(tmp_path, save):
    save(tmp_path / "prior")
    prior = load_external(tmp_path / "prior")
    state = torch.get_rng_state()
    again = empty_external(json.loads(json.dumps(prior.facts)))
    assert torch.equal(torch.get_rng_state(), state)
    again.denoiser.load_state_dict(prior.denoiser.state_dict())
    noisy, sigma = x_t(2, 1, 8, 8), torch.tensor([0.1, 3.0])
    assert torch.equal(prior.denoiser(noisy, sigma), again.denoiser(noisy, sigma))


def test_gradients_reach_the_image_and_not_the_weights(tmp_path):
    save_pipeline(tmp_path)
    prior = load_external(tmp_path)
    assert not prior.denoiser.training
    assert not any(parameter.requires_grad for parameter in prior.denoiser.parameters())
    noisy = x_t(1, 1, 8, 8).requires_grad_()
    prior.denoiser(noisy, torch.tensor([0.5])).sum().backward()
    assert noisy.grad is not None and noisy.grad.abs().sum() > 0


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_network(path: Path, **changes) -> None:
    edit(path, network=json.loads(path.read_text())["network"] | changes)


def drop_a_tensor(path: Path) -> None:
    tensors = load_file(path)
    tensors.pop("conv_in.bias", None)
    tensors.pop("conv_in.conv.bias", None)
    save_file(tensors, path, metadata={"format": "pt"})


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
SCHEDULE = "scheduler/scheduler_config.json"
BROKEN_DIFFUSERS = {
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "nothing pickled"),
    "truncated weights": (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:500]), "truncated"),
    "other widths": (lambda f: edit(f / "unet/config.json", block_out_channels=[4, 12]), "do not fit"),
    "a tensor missing": (lambda f: drop_a_tensor(f / WEIGHTS), "do not fit"),
    "no scheduler": (lambda f: (f / SCHEDULE).unlink(), "scheduler_config.json: is missing"),
    "no JSON": (lambda f: (f / SCHEDULE).write_text("{"), "cannot be read as JSON"),
    "a JSON list": (lambda f: (f / SCHEDULE).write_text("[]"), "is not a configuration"),
    "another network": (lambda f: edit(f / "unet/config.json", _class_name="UNet2DConditionModel"), "UNet2DModel"),
    "unknown block": (lambda f: edit(f / "unet/config.json", down_block_types=["A", "B"]), "mend"),
    "flow matching": (lambda f: edit(f / SCHEDULE, _class_name="FlowMatchEulerDiscreteScheduler"), "DDPM's kind"),
    "no scheduler's name": (lambda f: edit(f / SCHEDULE, _class_name="UNet2DModel"), "DDPM's kind"),
    "unknown prediction": (lambda f: edit(f / SCHEDULE, prediction_type="flow"), "epsilon, v_prediction, sample"),
    "unknown schedule": (lambda f: edit(f / SCHEDULE, beta_schedule="steep"), "mend"),
    "no noise": (lambda f: edit(f / SCHEDULE, beta_start=0, beta_end=0), "schedule cannot be used"),
    "latent pipeline": (lambda f: edit(f / "model_index.json", vqvae=["diffusers", "VQModel"]), "vqvae"),
    "classes": (lambda f: edit(f / "unet/config.json", num_class_embeds=3), "unconditional"),
    "more channels in": (lambda f: edit(f / "unet/config.json", in_channels=4), "unconditional"),
    "fourier": (lambda f: edit(f / "unet/config.json", time_embedding_type="fourier"), "VE-SDE"),
}
BROKEN_MONAI = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.pt"),
    "truncated weights": (lambda f: (f / "model.safetensors").write_bytes(b"short"), "truncated"),
    "other widths": (lambda f: edit_network(f / "config.json", channels=[4, 8, 16]), "do not fit"),
    "a tensor missing": (lambda f: drop_a_tensor(f / "model.safetensors"), "do not fit"),
    "unknown argument": (lambda f: edit_network(f / "config.json", depth=3), "depth"),
    "unknown key": (lambda f: edit(f / "config.json", optimiser={}), "unknown optimiser"),
    "no scheduler": (lambda f: edit(f / "config.json", scheduler=3), "must be objects"),
    "bad range": (lambda f: edit(f / "config.json", range=[1, 0]), "range"),
    "classes": (lambda f: edit_network(f / "config.json", num_class_embeds=3), "unconditional"),
    "unknown prediction": (lambda f: edit(f / "config.json", scheduler={"prediction_type": "flow"}), "epsilon"),
    "unknown schedule": (lambda f: edit(f / "config.json", scheduler={"schedule": "steep"}), "mend"),
}


def refused(path: Path | str, match: str, error: type[Exception] = ModelError) -> None:
    with pytest.raises(error, match=match) as caught:
        load_external(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(("breaking", "match"), BROKEN_DIFFUSERS.values(), ids=BROKEN_DIFFUSERS)
def test_a_broken_diffusers_folder(tmp_path, breaking, match):
    save_pipeline(tmp_path)
    breaking(tmp_path)
    refused(tmp_path, match)


@pytest.mark.parametrize(("breaking", "match"), BROKEN_MONAI.values(), ids=BROKEN_MONAI)
def test_a_broken_monai_folder(tmp_path, breaking, match):
    folder = tmp_path / "prior"
    save_monai(folder)
    breaking(folder)
    refused(folder, match)


def test_nothing_pickled_is_read(tmp_path):
    folder = tmp_path / "prior"
    net, _ = save_monai(folder, tensors="model.pt")
    torch.save(net, folder / "model.pt")
    refused(folder, "more than tensors")
    torch.save([1, 2], folder / "model.pt")
    refused(folder, "do not fit")


def test_no_such_prior(tmp_path):
    refused(tmp_path, "is no prior's folder")
    refused(tmp_path / "nowhere", "no such folder")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "is a file")


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    save_pipeline(tmp_path / "d")
    save_monai(tmp_path / "m")

    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(libraries, "import_module", absent)
    for folder in ("d", "m"):
        with pytest.raises(WeightsError, match=r"pip install 'priorlens\[priors\]'"):
            load_external(tmp_path / folder)


class Hub:
    """What the hub would do: a cache, and a network that may be down."""

    def __init__(self, cached: Path | None = None, online: Path | None = None) -> None:
        self.cached, self.online, self.asked = cached, online, []

    def __call__(self, name: str, local_files_only: bool = False, **options) -> str:
        folder = self.cached if local_files_only else self.online
        self.asked.append("cache" if local_files_only else options.get("allow_patterns"))
        if folder is None:
            raise OSError("a long story\nof several lines")
        return str(folder)


def test_a_name_on_the_hub(tmp_path, monkeypatch):
    net, scheduler = save_pipeline(tmp_path / "prior")
    for hub, asked in [(Hub(cached=tmp_path / "prior"), 1), (Hub(online=tmp_path / "prior"), 3)]:
        monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
        prior = load_external("owner/name")
        assert len(hub.asked) == asked
        assert_native(prior, net, scheduler, native_diffusers(scheduler), (1, 8, 8), steps=(100,))


def test_offline_the_hub_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub())
    refused("owner/name", "offline", WeightsError)


def test_what_cannot_be_used_is_not_downloaded(tmp_path, monkeypatch):
    save_pipeline(tmp_path)
    edit(tmp_path / "model_index.json", vae=["diffusers", "AutoencoderKL"])
    hub = Hub(online=tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    with pytest.raises(ModelError, match="vae"):
        load_external("owner/name")
    assert not any("safetensors" in pattern for asked in hub.asked[1:] for pattern in asked)
