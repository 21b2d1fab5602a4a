"""
Serve it: one ONNX graph, one folder
====================================

A defended classifier leaves Python as one ONNX graph, which judges as PyTorch does, and travels as one folder with a
model card. Both need the package's extra: ``pip install "robustrecon[onnx]"``.
"""

import tempfile
from pathlib import Path

import onnxruntime
import torch

from robustrecon import DefendedClassifier, export_onnx, load_data, load_defended
from robustrecon.defence import RobustRisk

folder = Path(tempfile.mkdtemp())
defended = load_defended("robust/digits")
x = load_data("digits").test.x

# %%
# The graph
# ---------
# Images in; label, score, p-value and rejection out, for any number of images. The backward passes of a model that
# draws by input gradients are in the graph too.

file = export_onnx(defended, folder / "digits.onnx")
session = onnxruntime.InferenceSession(file)
label, score, p_value, rejected = session.run(None, {"images": x.numpy()})
print(session.get_modelmeta().custom_metadata_map)

# %%
# On the command line: ``robustrecon export --model robust/digits --out digits.onnx``.
#
# PyTorch and ONNX Runtime agree:

verdict = defended.inspect(x)
print("labels equal:", bool((torch.from_numpy(label) == verdict.label).all()))
print("verdicts equal:", bool((torch.from_numpy(rejected) == verdict.rejected).all()))
print("largest difference of a score:", (torch.from_numpy(score) - verdict.score).abs().max().item())

# %%
# The graph does not check its input, as ``inspect`` does: see to it that images are in [0, 1]. Only an input whose
# score is no number is rejected there too.
#
# The folder
# ----------
# ``save`` writes one file, or a folder in Hugging Face's layout, which ``huggingface_hub.upload_folder`` publishes. Say
# what you know of the model; what nobody measured, the card says.

print(defended.about)
defended.save(folder / "robust-digits")
again = DefendedClassifier.load(folder / "robust-digits")
print(torch.equal(again.predict(x), defended.predict(x)))
print((folder / "robust-digits" / "README.md").read_text())

# %%
# After ``robustrecon bench`` or ``robustrecon.benchmark`` have measured its robust risk, add that:
# ``dataclasses.replace(defended.about, robust_risks=(RobustRisk("linf", 0.3, risk, n, "selective-100"),))``.

print(RobustRisk("linf", 0.3, 0.066, 1000, "all attacks of the suite, image by image"))
