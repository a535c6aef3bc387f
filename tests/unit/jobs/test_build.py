"""The process of a build gets no more of a model than it needs."""

import pickle
import subprocess
import sys
from pathlib import Path

from jobs.build.build import _load_and_describe
from models.config import EncoderConfig
from models.encoder import load_encoder

CONFIG = EncoderConfig(
    name="dinov2",
    family="dinov2",
    checkpoint=str(Path(__file__).parents[3] / "demo" / "weights" / "dinov2"),
    device="cpu",
)


def test_the_process_of_a_build_whose_models_decode_loads_no_torch(tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    answer.write_bytes(pickle.dumps(_load_and_describe(CONFIG, load_encoder, decodes=False)))
    script = "import pathlib, pickle, sys; pickle.loads(pathlib.Path(sys.argv[1]).read_bytes()); "
    script += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script, str(answer)], check=False).returncode == 0


def test_what_decodes_comes_with_the_version_where_other_processes_decode() -> None:
    info, decoder = _load_and_describe(CONFIG, load_encoder, decodes=True)
    assert info == load_encoder(CONFIG).info
    assert decoder is not None
