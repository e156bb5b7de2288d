"""The commands as a user calls them, on a tiny model."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mpcbench.cli import COMMANDS, LazyGroup
from mpcbench.records.store import read_folder
from tests.accuracy.questions import tiny_rows, write_rows
from tests.tiny import tiny_folder, tiny_texts

PROMPT = "w5 w9 w33 w60"


def mpcbench(*arguments: object) -> Result:
    """Call the program in this process, as its entry point does."""
    return CliRunner().invoke(LazyGroup("mpcbench"), [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    """What the program says when it refuses; one sentence, an exit code, nothing on standard output."""
    result = mpcbench(*arguments)
    assert result.exit_code not in (0, None) and result.stdout == "" and "Traceback" not in result.output
    (sentence,) = [line for line in result.stderr.splitlines() if line.startswith(("mpcbench: ", "Error: "))]
    return sentence


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model, calibration text, questions and an export; the cache is in it too."""
    folder = tmp_path_factory.mktemp("cli")
    tiny_folder(folder / "tiny", layers=3)
    (folder / "words.txt").write_text("\n".join(tiny_texts(48)))
    write_rows(folder / "questions.jsonl", tiny_rows())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPCBENCH_CACHE", str(folder / "cache"))
        done = mpcbench("export", folder / "tiny", "--out", folder / "out", *data(folder)[:2])
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPCBENCH_CACHE", str(place / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(place)


def data(folder: Path = Path()) -> list[object]:
    return ["--calibration-data", folder / "words.txt", "--task-data", folder / "questions.jsonl"]


ONCE = ("--prompt", PROMPT, "--repetitions", 1, "--warmups", 0)


def test_compare_measures_prints_and_goes_on_where_it_stopped(place: Path) -> None:
    job = ("compare", "--model", "tiny", *data(), *ONCE, "--results", "compared")
    job += ("--provider", "first-party")
    first = mpcbench(*job, "--layers", "0")
    assert first.exit_code == 0, first.output
    (plain,) = read_folder(place / "compared")

    both = mpcbench(*job, "--layers", "0,2", "--json")
    assert both.exit_code == 0, both.output
    records = json.loads(both.stdout)
    assert [len(record["model"]["polynomial_layers"]) for record in records] == [0, 2]
    assert records[0]["run_id"] == plain.run_id  # not measured again
    for record in records:
        assert set(record["ledger"]) == {"setup", "offline", "online"}
        for phase in record["ledger"].values():
            assert {"bytes", "bytes_sent", "rounds", "entries"} <= set(phase)
            assert phase["bytes"] == sum(phase["bytes_sent"])
        assert record["ledger"]["online"]["entries"][0]["operator"]
    less = [record["ledger"]["online"]["bytes"] for record in records]
    assert less[0] > less[1]

    names = {path.name for path in (place / "compared").iterdir()}
    for figure in ("online_bytes", "latency", "accuracy_communication", "activation_layer"):
        assert {f"{figure}.pdf", f"{figure}.png"} <= names
    assert {"comparison.md", "comparison.tex", "comparison.csv"} <= names

    table = mpcbench(*job, "--layers", "0,2").stdout
    assert "online rounds" in table and "questions.jsonl acc" in table and "†" in table
    assert "Traceback" not in table


def test_run_takes_an_export_and_records(place: Path) -> None:
    done = mpcbench("run", "tiny", "--shares", "out", *ONCE, "--results", "ran", "--json")
    assert done.exit_code == 0, done.output
    (record,) = json.loads(done.stdout)
    assert record["workload"]["prompt"] == PROMPT and record["agreement"]["argmax_equal"]
    assert record["accuracy"] == []
    assert len(list((place / "ran").glob("*.json"))) == 1


def test_generate_prints_a_text_and_what_its_tokens_took(place: Path) -> None:
    job = ("generate", "tiny", "--prompt", PROMPT, "--max-new-tokens", 3, "--layers", 1, *data()[:2])
    done = mpcbench(*job, "--results", "texts")
    assert done.exit_code == 0, done.output
    (record,) = read_folder(place / "texts")
    assert len(record.generation.tokens) == 3 and len(record.model.polynomial_layers) == 1
    assert "gives the same tokens" in done.stdout and f'Text: "{PROMPT}' in done.stdout
    assert "opened once" in done.stdout  # frontier is the default


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--max-new-tokens", "0"), "0 is not in the range"),
        (("--max-new-tokens", "126"), "ask for 1 to 125 new tokens, not 126"),
        (("--prompt", "w5"), "change --prompt"),
        (("--prompt", "w5 " * 129), "takes 2 to 128"),
        (("--layers", "4"), "--layers 4 is out of range"),
        (("--shares", "out", "--layers", "1"), "exported from other weights"),
    ],
)
def test_what_generate_refuses(arguments: tuple[str, ...], says: str) -> None:
    job = ("generate", "tiny", "--prompt", PROMPT, *data()[:2], "--results", "no-texts")
    assert says in refused(*job, *arguments)
    assert not list(Path("no-texts").glob("*.json"))


def test_calibrate_writes_a_checkpoint_that_export_takes(place: Path) -> None:
    made = mpcbench(
        "calibrate", "--model", "tiny", "--layers", 1, *data()[:2], "--out", place / "poly", "--json"
    )
    (facts,) = json.loads(made.stdout)
    assert len(facts["polynomial_layers"]) == 1 and Path(facts["folder"]) == place / "poly"
    shared = mpcbench("export", "poly", "--out", "poly-out", *data()[:2])
    assert shared.exit_code == 0 and "1 of 3 layers polynomial" in shared.stdout
    assert (place / "poly-out" / "party1" / "shares.safetensors").is_file()


def test_protocols_and_models_as_json() -> None:
    protocols = json.loads(mpcbench("protocols", "--json").stdout)
    assert "crypten" in [protocol["name"] for protocol in protocols]
    models = json.loads(mpcbench("models", "--json").stdout)
    assert "smollm2-135m" in [model["name"] for model in models]


@pytest.mark.parametrize("command", [("compare", "--model"), ("run",), ("export", "--out", "nowhere")])
def test_an_unknown_model(command: tuple[str, ...]) -> None:
    if command[0] == "export":
        sentence = refused("export", "nobody/nothing", "--out", "nowhere")
    else:
        sentence = refused(*command, "nobody/nothing", "--results", "none")
    assert "nobody/nothing" in sentence and "smollm2-135m" in sentence
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--layers", "0,4"), "--layers 4 is out of range: the model has 3 layers"),
        (("--layers", "2,2"), "--layers names 2 more than once"),
        (("--layers", "many"), "give numbers with commas"),
        (("--layers", "0", "--degree", "7"), "choose 2, 3 or 4"),
        (("--layers", "1", "--placement", "middle"), "none of least-sensitive, first, last"),
        (("--layers", "0", "--protocol", "nope"), "choose crypten, crypten-reuse, "),
        (("--layers", "0", "--prompt", ""), "change --prompt"),
        (("--layers", "0", "--rendezvous", "here"), "HOST:PORT"),
        (("--layers", "0", "--task-data", "nothing.jsonl"), "nothing.jsonl"),
        (("--layers", "0", "--calibration-data", "nothing.txt"), "There is no calibration file nothing.txt"),
    ],
)
def test_what_compare_refuses(arguments: tuple[str, ...], says: str) -> None:
    assert says in refused("compare", "--model", "tiny", "--results", "refused", *arguments)
    assert not list(Path("refused").glob("*.json"))


def test_a_protocol_with_an_unknown_operator_or_parameter(place: Path) -> None:
    stock = (Path(__file__).parents[2] / "protocols" / "crypten.yaml").read_text()
    for old, new, says in (
        ("softmax:", "softmin:", "operator 'softmin' is unknown: choose"),
        ("use: crypten.softmax", "use: crypten.softmin", "crypten.softmin"),
        ("margin: 2.0", "margins: 2.0", "parameter 'margins' is unknown: allowed are"),
        ("provider: dealer", "provider: [", "changed.yaml"),
    ):
        (place / "changed.yaml").write_text(stock.replace(old, new))
        sentence = refused("run", "tiny", "--protocol", "changed.yaml", "--prompt", PROMPT)
        assert says in sentence


def test_shares_of_another_model(place: Path) -> None:
    tiny_folder(place / "other", seed=5, layers=3)
    says = refused("run", "other", "--shares", "out", *ONCE, "--results", "none")
    assert "exported from other weights" in says


def test_a_share_folder_that_is_none() -> None:
    assert "name a party's folder" in refused("run", "tiny", "--shares", "cache", *ONCE)
    assert "There is no folder gone" in refused("party", "--rank", 0, "--shares", "gone")


def test_an_export_is_not_overwritten() -> None:
    assert "exists already" in refused("export", "tiny", "--out", "out", *data()[:2])


def test_a_busy_port() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        says = refused("run", "tiny", "--shares", "out", *ONCE, "--rendezvous", address, "--results", "none")
    assert f"Cannot listen on {address}" in says and "choose another address" in says


def test_a_dealer_that_nobody_comes_to() -> None:
    says = refused("dealer", "--rendezvous", "127.0.0.1:0", "--wait", "0.2")
    assert "a party did not come to 127.0.0.1" in says


def test_material_is_made_ahead_and_used_once(place: Path) -> None:
    made = mpcbench("preprocess", "out", "--tokens", 4, "--inferences", 1, "--out", "ahead", "--json")
    assert made.exit_code == 0, made.output
    assert [row["party"] for row in json.loads(made.stdout)] == [0, 1]
    job = ("run", "tiny", "--shares", "out", *ONCE, *data()[2:], "--material", "ahead", "--results", "used")
    first = mpcbench(*job)
    assert first.exit_code == 0, first.output
    assert len(read_folder(place / "used")) == 1
    assert "used" in refused(*job) and len(read_folder(place / "used")) == 1


def test_material_for_more_tokens_than_the_model_takes() -> None:
    says = refused("preprocess", "out", "--tokens", 4096, "--inferences", 1, "--out", "too-long")
    assert "give fewer --tokens" in says and not Path("too-long").exists()


@pytest.mark.parametrize("role", ["client", "dealer"])
def test_a_server_whose_hosts_file_is_missing(role: str) -> None:
    assert "none.yaml" in refused("serve", role, "--hosts", "none.yaml")


def test_a_provider_that_there_is_not() -> None:
    assert "--provider 'oracle' is unknown" in refused("run", "tiny", *ONCE, "--provider", "oracle")


def test_a_folder_that_cannot_be_written(place: Path) -> None:
    (place / "file").write_text("")
    for results in ("file", "file/results", "/proc/results"):
        says = refused("compare", "--model", "tiny", "--layers", "0", "--results", results)
        assert results in says and "--results" in says


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(place: Path) -> None:
    (place / "locked").mkdir(mode=0o500)
    assert "Permission denied" in refused("run", "tiny", *ONCE, "--results", "locked")


def test_every_command_is_tested_here_or_beside_this_file() -> None:
    words = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert all(f'"{name}"' in words for name in COMMANDS)
