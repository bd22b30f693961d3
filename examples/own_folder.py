"""Learn from your own healthy images, and list new ones from the most to the least abnormal.

    python examples/own_folder.py HEALTHY NEW

HEALTHY and NEW are folders of images (PNG, JPEG, TIFF, NPY; grey or colour, any size).
"""

import sys
from pathlib import Path

import numpy as np

from priorlens import AnoDODE, find_cases, healthy_cases, read_image

healthy, new = Path(sys.argv[1]), Path(sys.argv[2])

cases = healthy_cases(healthy)
detector = AnoDODE(seed=0).fit([read_image(case.path) for case in cases], groups=[case.group for case in cases])
detector.save(Path("model"))  # for later: AnoDODE.load(Path("model"))

images = [read_image(case.path) for case in find_cases([new])]
scores = detector.score(images)  # for thousands of images: a few at a time

for i in np.argsort(-scores.anomaly):
    row, column = np.unravel_index(scores.anomaly_map[i].argmax(), scores.anomaly_map[i].shape)
    print(f"{scores.anomaly[i]:8.3f}  {images[i].path}  most surprising at row {row}, column {column}")
