"""The whole procedure on a tiny recipe: all phases and kinds, sharing, methods, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from effstilts.cli import main
from effstilts.store import Store, verify_folder

pytestmark = pytest.mark.slow


def run(recipe: Path, store: Path, *sets: str) -> dict[str, Any]:
    arguments = ["run", str(recipe), "--store", str(store), "--quiet", "--offline"]
    for text in sets:
        arguments += ["--set", text]
    assert main(arguments) == 0
    return Store(store).read_run("tiny")


def kinds(store: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for folder in (store / "artefacts").iterdir():
        counts[folder.name.split("-")[0]] = counts.get(folder.name.split("-")[0], 0) + 1
    return counts


def test_every_phase_and_kind_and_nothing_twice(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    record = run(tiny_recipe, store)
    assert all("score" in cell for cell in record["cells"]) and len(record["cells"]) == 12
    made = kinds(store)
    assert {k: made[k] for k in ("tokenizer", "mlm", "intermediate", "target", "evaluate", "retrieve")} == {
        "tokenizer": 1, "mlm": 1, "intermediate": 1, "target": 8, "evaluate": 10, "retrieve": 2,
    }  # fmt: skip
    before = {p: p.stat().st_mtime_ns for p in (store / "artefacts").iterdir()}
    (trained,) = (p.name for p in before if p.name.startswith("intermediate-"))
    (store / "work" / trained / "checkpoint-000001").mkdir(parents=True)  # as a kill after the rename leaves it
    again = run(tiny_recipe, store)
    assert again["cells"] == record["cells"]
    assert {p: p.stat().st_mtime_ns for p in (store / "artefacts").iterdir()} == before
    assert not any((store / "work").iterdir()) and not any((store / "tmp").iterdir())
    for folder in before:
        verify_folder(folder)
    capsys.readouterr()
    assert main(["plan", str(tiny_recipe), "--store", str(store), "--offline"]) == 0
    plan = capsys.readouterr().out
    assert "23 of 23 done" in plan and "to run" not in plan
    assert main(["show", "--store", str(store)]) == 0
    assert "12 of 12  baseline, nli  new" in capsys.readouterr().out
    assert main(["show", "tiny", "--store", str(store)]) == 0
    shown = capsys.readouterr().out
    assert "nli - baseline" in shown and "synthetic/tatoeba: accuracy" in shown


def test_a_target_is_exported_whole(tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An adapter's target, its test set answered by plain transformers as the run answered it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from effstilts.synthetic import rows

    store = tmp_path / "store"
    sets = [word for text in ("method={name: lora, rank: 2}", "mlm.method={name: full}") for word in ("--set", text)]
    assert main(["run", str(tiny_recipe), "--store", str(store), "--offline", *sets]) == 0
    out, base = tmp_path / "out", ["--store", str(store), "--arm", "nli"]
    assert main(["export", "tiny", str(out), "--target", "synthetic/xnli", *base]) == 0
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(out).eval(),
        AutoTokenizer.from_pretrained(out),
    )
    record = json.loads((store / "runs" / "tiny.json").read_text())
    (cell,) = [c for c in record["cells"] if (c["arm"], c["task"], c["language"]) == ("nli", "synthetic/xnli", "qaa")]
    kept = (store / "artefacts" / cell["step"] / "predictions.jsonl").read_text().splitlines()
    with torch.no_grad():
        for row, line in zip(rows("xnli", "test", "qaa", 12), kept, strict=True):
            found = model(**tokenizer(row["premise"], row["hypothesis"], return_tensors="pt")).logits.argmax().item()
            assert model.config.id2label[found] == json.loads(line)["prediction"]
    (adapter,) = {path.name for path in (store / "artefacts").glob("intermediate-*")}
    config = json.loads((store / "artefacts" / adapter / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] is None
    capsys.readouterr()
    for more, code, said in (
        (["--target", "synthetic/xnlii"], 2, "no target 'synthetic/xnlii' (did you mean 'synthetic/xnli'"),
        (["--target", "synthetic/tatoeba"], 2, "no target 'synthetic/tatoeba'"),
        (["--target", "synthetic/xnli", "--layer", "1"], 2, "leave --layer"),
    ):
        assert main(["export", "tiny", str(tmp_path / "no"), *base, *more]) == code
        assert said in capsys.readouterr().err


def test_a_change_of_one_target_leaves_the_rest(tiny_recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(tiny_recipe, store)
    first = kinds(store)
    run(tiny_recipe, store, "targets.1.training.steps=4")
    second = kinds(store)
    assert second["target"] - first["target"] == 2 and second["evaluate"] - first["evaluate"] == 2
    assert (second["mlm"], second["intermediate"]) == (first["mlm"], first["intermediate"])
    run(tiny_recipe, store, "training.checkpoint_every=3")
    assert kinds(store)["mlm"] == first["mlm"]


def test_the_table_is_the_same_in_another_store(tiny_recipe: Path, tmp_path: Path) -> None:
    first, second = (run(tiny_recipe, tmp_path / name)["cells"] for name in ("a", "b"))
    assert first == second


def test_an_artefact_loads_with_plain_transformers(tiny_recipe: Path, tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    from effstilts.model.opening import load

    store = tmp_path / "store"
    run(tiny_recipe, store)
    (folder,) = (store / "artefacts").glob("intermediate-*")
    tokens = AutoTokenizer.from_pretrained(folder / "encoder")("Anna waited.", return_tensors="pt")
    model = AutoModel.from_pretrained(folder / "encoder", add_pooling_layer=False).eval()
    ours = load(str(folder / "encoder")).eval()
    with torch.inference_mode():
        expected = model(tokens["input_ids"])[0]
        assert torch.equal(ours(tokens["input_ids"], tokens["attention_mask"]), expected)
    facts = Store(store).facts(*folder.name.split("-", 1))
    assert facts["cost"]["trained_parameters"] == facts["cost"]["parameters"] > 0
    assert facts["machine"]["torch"] == torch.__version__ and facts["steps"] == 6
    numbers = [
        Store(store).facts(*path.name.split("-", 1))
        for kind in ("evaluate", "retrieve")
        for path in (store / "artefacts").glob(f"{kind}-*")
    ]
    costs = [number["scoring_cost"] for number in numbers]
    assert costs and all(cost["tokens"] > 0 and cost["flops"] > 0 and cost["seconds"] > 0 for cost in costs)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [e["step"] for e in events if e["event"] == "step"] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("carry", ["merge", "continue"])
def test_lora_through_the_phases(tiny_recipe: Path, tmp_path: Path, carry: str) -> None:
    store = tmp_path / "store"
    record = run(tiny_recipe, store, "method={name: lora, rank: 2}", "mlm.method={name: full}", f"method.carry={carry}")
    assert all("score" in cell for cell in record["cells"])
    targets = list((store / "artefacts").glob("target-*"))
    assert targets and all((t / "adapter" / "adapter_model.safetensors").is_file() for t in targets)
    assert not any((t / "encoder").exists() for t in targets)
    for target in targets:
        facts = Store(store).facts(*target.name.split("-", 1))
        assert facts["cost"]["trained_parameters"] < facts["cost"]["parameters"] / 2


@pytest.mark.parametrize(
    ("method", "carry"),
    [
        ("rslora", "stack"),
        ("vera", "continue"),
        ("bitfit", "merge"),
        ("qlora", "stack"),
        ("lora-int8", "merge"),
        ("adalora", "merge"),
    ],
)
def test_other_methods_through_the_phases(tiny_recipe: Path, tmp_path: Path, method: str, carry: str) -> None:
    """Small artefacts, an arm's adapter trained once for all targets, and quantised bases say how far a merge moves."""
    if method in ("qlora", "lora-int8"):
        pytest.importorskip("bitsandbytes")
    store = tmp_path / "store"
    chosen = f"method={{name: {method}, rank: 2, carry: {carry}}}"
    record = run(tiny_recipe, store, chosen, "mlm.method={name: full}", "targets=[synthetic/xnli, synthetic/udpos]")
    assert all("score" in cell for cell in record["cells"]) and kinds(store)["intermediate"] == 1
    for folder in (store / "artefacts").glob("target-*"):
        facts = Store(store).facts(*folder.name.split("-", 1))
        assert ("merge_drift" in facts) == (method in ("qlora", "lora-int8")) and not (folder / "encoder").exists()
        assert 0 < facts.get("merge_drift", 0.01) < 0.5
        assert ("ranks" in facts) == (method == "adalora")


def test_carry_fresh_drops_the_adapter_of_the_phase_before(tiny_recipe: Path, tmp_path: Path) -> None:
    """Targets then begin where the intermediate phase began: to the last digit the baseline's scores."""
    method = "method={name: lora, rank: 2, carry: fresh}"
    record = run(tiny_recipe, tmp_path / "store", method, "mlm.method={name: full}", "targets=[synthetic/xnli]")
    scores: dict[str, list[float]] = {}
    for cell in record["cells"]:
        if cell["section"] == "target":
            scores.setdefault(cell["arm"], []).append(cell["score"])
    assert scores["nli"] == scores["baseline"]


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["targets.0.method={name: full, carry: stack}"], "carry stack needs an adapter in both phases"),
        (["targets.0.method={name: lora, rank: 4, carry: continue}"], "the same method, rank and alpha"),
        (["targets.0.method={name: ia3, carry: stack}"], "needs adapters of the LoRA family, not lora and ia3"),
        (
            ["intermediate.nli.method.name=adalora", "targets.0.method={name: adalora, carry: continue}"],
            "the phase before has spent adalora's rank budget",
        ),
        (
            ["targets.0.method={name: dora, rank: 2, carry: stack}"],
            "dora scales the weights' columns as they are without",
        ),
        (["targets.0.method={name: adalora, carry: stack}"], "needs adapters of the LoRA family, not lora and adalora"),
        (["targets.0.method={name: qlorra}"], "did you mean 'qlora'"),
        (
            ["intermediate.nli.method.name=full", "targets.0.method={name: lora, rank: 2, carry: fresh}"],
            "carry fresh: no intermediate phase leaves an adapter",
        ),
    ],
)
def test_methods_that_do_not_fit_are_one_line(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], sets: list[str], words: str
) -> None:
    arguments = ["plan", str(tiny_recipe), "--store", str(tmp_path / "s"), "--offline"]
    for text in ["intermediate.nli.method={name: lora, rank: 2}", *sets]:
        arguments += ["--set", text]
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and len(error.splitlines()) == 1


ARMS = """
  qa: {tasks: [{task: synthetic/squad, rows: 64}], training: {steps: 5}}
  both: {combine: {arms: {nli: 0.5, qa: 0.5}}}
  apart: {combine: {arms: {nli: 1, qa: 1}, how: dare_ties, density: 0.5}}
"""


def with_combined_arms(recipe: Path) -> Path:
    text = recipe.read_text()
    recipe.write_text(text.replace("targets:\n", f"{ARMS.strip(chr(10))}\ntargets:\n"))
    return recipe


def test_arms_are_combined_without_training_them_again(tiny_recipe: Path, tmp_path: Path) -> None:
    """Both arms are trained even where only their combination is asked for; whole weights add up; heads are fresh."""
    from safetensors.torch import load_file

    store = tmp_path / "store"
    asked = ["arms=[both, apart]", "targets=[synthetic/xnli]"]
    record = run(with_combined_arms(tiny_recipe), store, *asked)
    assert {cell["arm"] for cell in record["cells"]} == {"both", "apart"} and all("score" in c for c in record["cells"])
    assert kinds(store) | {"rows": 0} == kinds(store) | {"rows": 0, "intermediate": 2, "combine": 2, "target": 2}
    weights = {}
    for folder in (store / "artefacts").glob("*-*"):
        if (folder / "encoder").exists():
            label = Store(store).facts(*folder.name.split("-", 1))["label"]
            weights[label] = load_file(str(folder / "encoder" / "model.safetensors"))
    (mlm,) = (label for label in weights if label.startswith("mlm"))
    for name, tensor in weights["intermediate both, seed 1"].items():
        moved = [weights[f"intermediate {arm}, seed 1"][name] - weights[mlm][name] for arm in ("nli", "qa")]
        assert torch.allclose(tensor, weights[mlm][name] + 0.5 * moved[0] + 0.5 * moved[1], atol=1e-6)
    assert not any((f / "heads.safetensors").exists() for f in (store / "artefacts").glob("combine-*"))
    assert main(["plan", str(tiny_recipe), "--store", str(store), "--offline", "--set", asked[0]]) == 0
    assert main(["export", "tiny", str(tmp_path / "out"), "--store", str(store), "--arm", "both"]) == 0


@pytest.mark.parametrize("carry", ["merge", "stack", "continue"])
def test_a_sum_of_lora_arms_is_carried_as_an_adapter(tiny_recipe: Path, tmp_path: Path, carry: str) -> None:
    from safetensors.torch import load_file

    store = tmp_path / "store"
    rank = "rank: 4, alpha: 4" if carry == "continue" else "rank: 2"
    record = run(
        with_combined_arms(tiny_recipe), store, "arms=[both]", "method={name: lora, rank: 2}",
        "mlm.method={name: full}", f"targets=[{{task: synthetic/xnli, method: {{{rank}, carry: {carry}}}}}]",
    )  # fmt: skip
    assert all("score" in cell for cell in record["cells"])
    (folder,) = (store / "artefacts").glob("combine-*")
    assert not (folder / "encoder").exists()
    saved = load_file(str(folder / "adapter" / "adapter_model.safetensors"))
    assert {tensor.shape[0] for name, tensor in saved.items() if "lora_A" in name} == {4}


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["intermediate.both.combine.arms={nly: 1}"], "no arm 'nly' in intermediate (did you mean 'nli'?)"),
        (["intermediate.both.combine.arms={both: 1}"], "the arm 'both' trains nothing itself"),
        (["intermediate.both.combine.arms={baseline: 1}"], "the arm 'baseline' trains nothing itself"),
        (["intermediate.both.combine.arms={nli: 0}"], "the weight of 'nli' is 0"),
        (["intermediate.apart.combine.arms.nli=-1"], "dare_ties needs weights above 0"),
        (["intermediate.apart.combine.density=0"], "density is a share"),
        (["intermediate.apart.combine.how=tied"], "did you mean 'ties'"),
        (["intermediate.both.tasks=[synthetic/mnli]"], "a combination of arms trains nothing; take out 'tasks'"),
        (["mlm.combine={arms: {nli: 1}}"], "mlm.combine: phase 1 has no arms"),
        (
            ["method={name: lora, rank: 2, carry: stack}", "mlm.method={name: full}"],
            "combined by dare_ties, are whole weights and no adapter any more; use carry merge",
        ),
    ],
)
def test_combinations_that_cannot_be_are_one_line(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], sets: list[str], words: str
) -> None:
    arguments = ["plan", str(with_combined_arms(tiny_recipe)), "--store", str(tmp_path / "s"), "--offline"]
    for text in sets:
        arguments += ["--set", text]
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert words in error and len(error.splitlines()) == 1, error


def test_a_hand_over_keeps_the_encoder_and_freshens_the_head(tiny_recipe: Path, tmp_path: Path) -> None:
    """Target training that cannot move (one step at a rate of nearly 0) leaves the encoder of phase 2 as it was."""
    from safetensors.torch import load_file

    store = tmp_path / "store"
    still = "{learning_rate: 1e-30, weight_decay: 0, steps: 1}"
    run(tiny_recipe, store, f"targets.0.training={still}")
    arms = {json.loads((p / "spec.json").read_text())["base"]: p for p in (store / "artefacts").glob("target-*")
            if json.loads((p / "spec.json").read_text())["training"]["learning_rate"] == 1e-30}  # fmt: skip
    assert len(arms) == 2
    for base, target in arms.items():
        (source,) = (p for p in (store / "artefacts").iterdir() if p.name.endswith(base))
        before = load_file(str(source / "encoder" / "model.safetensors"))
        after = load_file(str(target / "encoder" / "model.safetensors"))
        assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    (nli,) = (store / "artefacts").glob("intermediate-*")
    heads = [load_file(str(p / "heads.safetensors")) for p in (nli, *arms.values())]
    name = next(k for k in heads[0] if k.endswith("out.weight"))
    assert all(not torch.equal(heads[0][name], other[name]) for other in heads[1:])


def test_a_damaged_artefact_is_named_and_made_again(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    run(tiny_recipe, store)
    (mlm,) = (store / "artefacts").glob("mlm-*")
    weights = mlm / "encoder" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 4
    weights.write_bytes(content)
    code = main(["run", str(tiny_recipe), "--store", str(store), "--offline", "--set", "seeds=[1]",
                 "--set", "targets.0.training.steps=3"])  # fmt: skip
    error = capsys.readouterr().err
    assert code == 0 and "model.safetensors is damaged" in error and "Traceback" not in error
    content[-5] ^= 4
    assert weights.read_bytes() == content, "as it was, bit for bit"
    (aside,) = (store / "damaged").iterdir()
    assert aside.name.startswith(mlm.name)


def test_masked_lm_training_goes_on_from_a_checkpoints_own_head(
    tiny_recipe: Path, tmp_path: Path, tokenizer: Any
) -> None:
    """Phase 1 from a BERT checkpoint at a rate of nearly 0: encoder and masked-LM head come out as they went in."""
    from safetensors.torch import load_file
    from transformers import BertConfig, BertForMaskedLM

    from effstilts.model.opening import masked_lm_head

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, pad_token_id=1,
    )  # fmt: skip
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    store = tmp_path / "store"
    still = "{learning_rate: 1e-30, weight_decay: 0, steps: 1, precision: bf16}"
    run(tiny_recipe, store, f"model={tmp_path / 'bert'}", f"mlm.training={still}", "intermediate=null", "targets=[]")
    (mlm,) = (store / "artefacts").glob("mlm-*")
    expected = masked_lm_head(str(tmp_path / "bert"))
    assert expected is not None
    saved = {k.split("|")[1]: v for k, v in load_file(str(mlm / "heads.safetensors")).items()}
    assert saved.keys() == expected.keys()
    assert all(torch.allclose(saved[k], expected[k], rtol=0, atol=1e-20) for k in saved)
    before = load_file(str(tmp_path / "bert" / "model.safetensors"))
    after = load_file(str(mlm / "encoder" / "model.safetensors"))
    assert all(torch.allclose(tensor, before[f"bert.{name}"], rtol=0, atol=1e-20) for name, tensor in after.items())


def encoded(store: Path, name: str) -> list[dict[str, Any]]:
    lines = (store / "runs" / f"{name}.events.jsonl").read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "encoded"]


def test_rows_are_tokenised_once_for_all_methods_and_runs(tiny_recipe: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run(tiny_recipe, store)
    first = encoded(store, "tiny")
    assert first and len({(e["task"], e["language"], e["split"], e["rows"]) for e in first}) == len(first)
    run(tiny_recipe, store, "method={name: lora, rank: 2}", "mlm.method={name: full}", "mlm_seed=1", "name=again")
    assert encoded(store, "again") == [] and len(encoded(store, "tiny")) == len(first)


def test_a_target_may_go_on_from_another_tasks_head(tiny_recipe: Path, tmp_path: Path) -> None:
    """XTREME-R trains XCOPA's model on SIQA, then on COPA: one head through both."""
    from safetensors.torch import load_file

    store = tmp_path / "store"
    chain = "tasks.chain={extends: synthetic/xcopa, train_first: synthetic/hellaswag}"
    targets = "targets=[{task: chain, rows: 32, languages: [qac], training: {steps: 2, learning_rate: 1e-9}}]"
    run(tiny_recipe, store, chain, targets, "intermediate={baseline: {}}", "retrieval={tasks: []}")
    folders = {}
    for folder in (store / "artefacts").glob("target-*"):
        facts = Store(store).facts(*folder.name.split("-", 1))
        folders["first" if "before" in facts["label"] else "second"] = folder
    first, second = (load_file(folders[name] / "heads.safetensors") for name in ("first", "second"))
    before = {key.partition("|")[2]: tensor for key, tensor in first.items()}
    assert set(key.partition("|")[0] for key in first) == {"synthetic/hellaswag"}
    for key, tensor in second.items():
        assert key.startswith("chain|") and torch.allclose(tensor, before[key.partition("|")[2]], atol=1e-5)


def test_zero_shot_is_told_by_what_the_weights_were_trained_and_chosen_on(tmp_path: Path, tokenizer: object) -> None:
    """XCOPA has no English of its own: trained on English COPA, each of its languages is zero-shot."""
    from effstilts.data.sources import DataConfig
    from effstilts.log import Log
    from effstilts.procedure import build
    from effstilts.recipe_reader import recipe_from_tree
    from effstilts.studies.report import run_record
    from effstilts.synthetic import World
    from effstilts.workbench import Workbench

    own = {"kind": "classification", "labels": ["a", "b"], "columns": {"text": "t", "label": "l"}, "evaluate_on": "dev"}
    files = {split: f"{split}.jsonl" for split in ("train", "dev")}
    for split in files:
        (tmp_path / f"{split}.jsonl").write_text('{"t": "x", "l": "a"}\n', encoding="utf-8")
    tree = {
        "name": "n",
        "model": {"name": "new", "config": {"model_type": "xlm-roberta"}},
        "mlm": {"tasks": ["synthetic/text"]},
        "targets": [{"task": "afar"}, {"task": "home"}],
        "tasks": {
            "home": {**own, "languages": ["en", "de"], "files": files, "evaluate_on": "dev"},
            "afar": {
                **own,
                "languages": ["et", "it"],
                "files": {"dev": "dev.jsonl"},
                "evaluate_on": "dev",
                "train_on": "home",
            },
        },
    }
    recipe = recipe_from_tree(tree, "n")
    bench = Workbench(Store(tmp_path / "s"), DataConfig(tmp_path, "auto", True, World()), Log(quiet=True), recipe.tasks)
    cells = run_record("n", build(recipe, bench), bench.store, {})["cells"]
    told = {(c["task"], c["language"]): (c["training_language"], c["selected_on"]) for c in cells}
    assert told == {
        ("afar", "et"): ("en", False),
        ("afar", "it"): ("en", False),
        ("home", "en"): ("en", True),
        ("home", "de"): ("en", False),
    }
