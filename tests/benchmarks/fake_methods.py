"""Methods that do one thing, right or wrong, at once: for tests of what runs them. Workers find them on PYTHONPATH."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from benchmarks.method import PEER_MINUTES, Entry, Judged, Learned


def entry(name, kind, **more):
    return Entry(name, name, "simple", f"fake_methods:{kind}", "made for tests", **more)


class Bright:
    """What is brighter than the mean of the healthy images. Notes every fit in the file FAKE_FITS."""

    def fit(self, task, report):
        report(f"{len(task.images)} images")
        assert {path.name for path in task.folder.rglob("*")} <= {"state"}
        with open(os.environ.get("FAKE_FITS", os.devnull), "a") as file:
            file.write("fit\n")
        self.mean = np.mean([image.pixels.mean() for image in task.images])
        return Learned(curve=[("all", step, 1 / (1 + step)) for step in range(1000)], remark="fitted quickly")

    def save(self, folder):
        np.save(folder / "mean.npy", self.mean)

    def load(self, folder, task):
        self.mean = np.load(folder / "mean.npy")
        assert self.mean == np.mean([image.pixels.mean() for image in task.images])

    def judge(self, images):
        maps = [gaussian_filter(image.pixels[0] - self.mean, 1.5).astype(np.float32) for image in images]
        return Judged(np.array([one.max() for one in maps]), maps, calls=2.0)


class Dark(Bright):
    """The reverse."""

    def judge(self, images):
        found = super().judge(images)
        return Judged(-found.anomaly, [-one for one in found.maps])


class Both(Bright):
    """Reads the models of two methods."""

    def load(self, folder, task):
        self.mean = np.mean([np.load(folder / name / "mean.npy") for name in ("bright", "dark")])


class Constant(Bright):
    def judge(self, images):
        maps = [np.zeros(image.pixels.shape[1:], np.float32) for image in images]
        return Judged(np.full(len(images), 3.0), maps)


class Mapless(Bright):
    def judge(self, images):
        self.remark = f"peers may take {os.environ[PEER_MINUTES]} minutes"
        return Judged(super().judge(images).anomaly, None)


class Crashes(Bright):
    def fit(self, task, report):
        if os.environ.get("FAKE_DEFECT", "yes") == "yes":
            raise RuntimeError("a defect\nof two lines")
        return super().fit(task, report)


class Stops(Bright):
    """Leaves in the middle of its first training, as one of 100 seconds."""

    def fit(self, task, report):
        state = task.folder / "state/steps.txt"
        if state.is_file():
            return replace(super().fit(task, report), remark=f"went on from step {state.read_text()}")
        state.write_text("7")
        os.utime(state, (time.time() + 100,) * 2)
        os._exit(7)


class CrashesLater(Bright):
    def judge(self, images):
        if os.environ.get("FAKE_DEFECT", "yes") == "yes":
            raise RuntimeError("a defect")
        return super().judge(images)


class Killed(Bright):
    def judge(self, images):
        os.kill(os.getpid(), signal.SIGKILL)


class Leaves(Bright):
    def judge(self, images):
        os._exit(7)


class NoNumbers(Bright):
    def judge(self, images):
        return Judged(np.full(len(images), np.nan), None)


class SmallMaps(Bright):
    def judge(self, images):
        return Judged(np.zeros(len(images)), [np.zeros((8, 8), np.float32)] * len(images))


class Meets(Bright):
    """Goes on once another one of its kind is at work, and fails if none is. They write to the folder FAKE_MET."""

    def judge(self, images):
        met = Path(os.environ["FAKE_MET"])
        (met / str(os.getpid())).touch()
        until = time.monotonic() + 60
        while len(list(met.iterdir())) < 2:
            assert time.monotonic() < until, "nobody came"
            time.sleep(0.05)
        return super().judge(images)


class Sleeps(Bright):
    """Until it is killed; writes its number to the file FAKE_SLEEPER first. FAKE_AWAKE lets it work."""

    def judge(self, images):
        if "FAKE_AWAKE" not in os.environ:
            Path(os.environ["FAKE_SLEEPER"]).write_text(str(os.getpid()))
            time.sleep(600)
        return super().judge(images)
