"""Configuration: unknown keys are refused with the nearest known one, null is absent, files are named in errors."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import services
from services import ClientParams, ControllerConfig, ModelStoreConfig, RunConfig, ServerParams, TerminationSignals
from services.config import explain, load, merge, nearest, resolve, without_nulls
from services.errors import InvalidConfig

TLS = ["root_certificate", "server_certificate", "private_key"]


def refused(given: dict[str, Any]) -> str:
    """The sentence with which a run's configuration is refused."""
    with pytest.raises(InvalidConfig) as caught:
        resolve({}, given)
    return caught.value.detail


def test_the_defaults_are_those_of_the_contract() -> None:
    """A run of which nothing is said has the documented values."""
    config = resolve({}, {})
    assert (config.seed, config.min_learners, config.advance) == (1990, 1, "auto")
    assert (config.aggregation_rule, config.scaling_factor) == ("FedAvg", "NumTrainingExamples")
    assert (config.scheduler, config.selector, config.server_optimizer) == ("Synchronous", "All", "None")
    assert (config.selection.participation_ratio, config.selection.over_selection) == (1.0, 0.0)
    assert (config.schedule.round_deadline_s, config.schedule.min_updates, config.schedule.lease_s) == (3600, 1, 30)
    assert (config.evaluation.every, config.evaluation.initial, config.evaluation.overlap) == (1, False, False)
    assert config.termination == TerminationSignals()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"aggregation_rul": "FedAvg"}, "aggregation_rul: unknown key; did you mean aggregation_rule?"),
        ({"schedule": {"lease": 5}}, "schedule.lease: unknown key; did you mean lease_s?"),
        (
            {"termination": {"federation_round": 5}},
            "termination.federation_round: unknown key; did you mean federation_rounds?",
        ),
        ({"evaluation": {"zzz": 1}}, "evaluation.zzz: unknown key; known: every, initial, overlap, who"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(given: dict[str, Any], says: str) -> None:
    """A typing mistake, nested ones too, is answered with what was probably meant, else with what there is."""
    assert refused(given) == says


def test_every_wrong_key_and_value_is_told_at_once() -> None:
    """Where it is, what is wrong and what came, one sentence each, also as a list for programs."""
    with pytest.raises(InvalidConfig) as caught:
        resolve({}, {"selection": {"participation_ratio": 1.5}, "seed": "x" * 500, "nmae": "trial"})
    told = caught.value.values["errors"]
    assert caught.value.detail == "; ".join(told)
    assert sorted(line.partition(":")[0] for line in told) == ["nmae", "seed", "selection.participation_ratio"]
    assert any(line.endswith("(got 1.5)") for line in told)
    assert all(len(line) < 250 for line in told)


@pytest.mark.parametrize(
    "given",
    [
        {"selection": {"participation_ratio": 0}},
        {"schedule": {"round_deadline_s": 0}},
        {"schedule": {"lease_s": -1}},
        {"schedule": {"min_updates": 0}},
        {"schedule": {"semi_sync_lambda": 0}},
        {"termination": {"federation_rounds": 0}},
        {"termination": {"execution_cutoff_time_mins": 0}},
        {"termination": {"evaluation_metric_mode": "most"}},
        {"evaluation": {"every": -1}},
        {"min_learners": 0},
        {"seed": -1},
        {"advance": "yes"},
        {"initial_model": "sha256-00"},
        {"initial_model": "../../etc/passwd"},
        {"schedule": 5},
        {"train": []},
    ],
)
def test_an_impossible_value_is_refused(given: dict[str, Any]) -> None:
    """A value outside its range is no configuration; the sentence begins with its key."""
    (key,) = given
    assert refused(given).startswith(key)


def test_null_means_absent() -> None:
    """A key that is null takes the default, at the top and nested; a whole table may be null."""
    assert resolve({}, {"seed": None, "schedule": {"lease_s": None}, "selection": None}) == resolve({}, {})
    assert resolve({"seed": 7}, {"seed": None}).seed == 7


def test_nested_maps_merge_key_by_key() -> None:
    """A client changes one key of a table and keeps the controller's other ones; neither map is changed."""
    defaults = {"schedule": {"lease_s": 5, "min_updates": 2}, "train": {"opt": {"lr": 0.1, "wd": 0}}, "name": "a"}
    given = {"schedule": {"lease_s": 9}, "train": {"opt": {"lr": 0.5}}, "evaluate": {"batch_size": 8}}
    assert merge(defaults, given) == {
        "schedule": {"lease_s": 9, "min_updates": 2},
        "train": {"opt": {"lr": 0.5, "wd": 0}},
        "evaluate": {"batch_size": 8},
        "name": "a",
    }
    assert defaults["schedule"] == {"lease_s": 5, "min_updates": 2}
    assert given["schedule"] == {"lease_s": 9}


def test_the_free_maps_take_any_key() -> None:
    """`train` and `evaluate` reach the learner as their user wrote them."""
    free = {"learning_rate": 0.1, "nested": {"deep": [1, {"a": "b"}]}}
    config = resolve({}, {"train": free, "evaluate": free, "optimizer": free, "aggregation": free})
    assert config.train == config.evaluate == config.optimizer == config.aggregation == free


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}, b"x", "\ud800"])
def test_a_value_that_json_does_not_have_is_refused(value: Any) -> None:
    """A configuration crosses processes as JSON, so what JSON cannot say cannot be configured."""
    assert refused({"train": {"x": [value]}}).startswith("a value cannot be sent as JSON")


def test_a_configuration_that_never_ends_is_refused() -> None:
    """A map in itself, or ten thousand deep, is a configuration error, no crash."""
    loop: dict[str, Any] = {}
    loop["self"] = loop
    deep: dict[str, Any] = {}
    for _ in range(10_000):
        deep = {"a": deep}
    for value in (loop, deep):
        assert "nested deeper than 32 levels" in refused({"train": value})


def test_a_file_is_the_sparse_configuration_that_its_user_wrote(tmp_path: Path) -> None:
    """`load` checks the file and gives back its keys, not filled with defaults."""
    path = tmp_path / "federation.toml"
    path.write_text('name = "trial"\n[train]\nlearning_rate = 0.1\n[termination]\nfederation_rounds = 3\n')
    assert load(path) == {
        "name": "trial",
        "train": {"learning_rate": 0.1},
        "termination": {"federation_rounds": 3},
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"name = ", ": "),  # what follows are the words of Python's readers
        (b"\xff", ": "),
        (b"nmae = 'trial'", "did you mean name?"),
        (b"[train]\nsince = 2024-05-01", "cannot be sent as JSON"),
        (b"[train]\nrate = nan", "cannot be sent as JSON"),
        (b"[train]\nrate = -inf", "cannot be sent as JSON"),
        (b"[selection]\nparticipation_ratio = 2", "selection.participation_ratio: "),
    ],
)
def test_an_error_in_a_file_names_the_file(tmp_path: Path, text: bytes, says: str) -> None:
    """Whatever is wrong with it: not TOML, not UTF-8, unknown keys, dates and other values that cannot be sent."""
    path = tmp_path / "federation.toml"
    path.write_bytes(text)
    with pytest.raises(InvalidConfig) as caught:
        load(path)
    assert caught.value.detail.startswith(f"{path}: ")
    assert says in caught.value.detail
    assert caught.value.values["file"] == str(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """A wrong path, or a folder, is a configuration error too."""
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(InvalidConfig, match=str(path)):
            load(path)


def test_metisfl_names_are_there() -> None:
    """A MetisFL user changes only the imports; their misspelt name is the same class."""
    assert services.TerminationSingals is TerminationSignals
    assert ServerParams("localhost", 50051, None, None, None).port == 50051
    assert ClientParams("localhost", 50051, None).url == "http://localhost:50051"
    assert ModelStoreConfig("InMemory", 0).lineage_length == 0
    signals = TerminationSignals(5, 500, "accuracy", 0.99)
    assert (signals.federation_rounds, signals.execution_cutoff_time_mins) == (5, 500)
    assert (signals.evaluation_metric, signals.evaluation_metric_cutoff_score) == ("accuracy", 0.99)
    config = ControllerConfig(
        aggregation_rule="FedAvg", scheduler="Synchronous", scaling_factor="NumParticipants", participation_ratio=0.5
    )
    assert resolve(config.run_defaults(), {}).selection.participation_ratio == 0.5
    assert resolve(config.run_defaults(), {}).scaling_factor == "NumParticipants"


def test_the_controllers_defaults_say_only_what_was_given() -> None:
    """Options of rules that were left out do not reach a rule that has no such option."""
    assert ControllerConfig().run_defaults() == {
        "aggregation_rule": "FedAvg",
        "scheduler": "Synchronous",
        "scaling_factor": "NumTrainingExamples",
        "selection": {"participation_ratio": 1.0},
    }
    full = ControllerConfig(stride_length=3, semi_sync_lambda=2.0, semi_sync_recompute_num_updates=False)
    assert full.run_defaults()["aggregation"] == {"stride_length": 3}
    assert full.run_defaults()["schedule"] == {"semi_sync_lambda": 2.0, "semi_sync_recompute_num_updates": False}


@pytest.mark.parametrize("given", [TLS[:1], TLS[1:2], TLS[2:], TLS[:2], TLS[1:], [TLS[0], TLS[2]]])
def test_tls_needs_all_three_or_none(given: list[str]) -> None:
    """Half a TLS configuration is refused, not silently served in the clear."""
    with pytest.raises(ValueError, match="TLS needs root_certificate, server_certificate and private_key"):
        ServerParams(**dict.fromkeys(given, "x.pem"))  # type: ignore[arg-type]


def test_urls_say_scheme_and_host() -> None:
    """Plain without certificates, https with; an IPv6 address stands in brackets."""
    assert ServerParams("127.0.0.1", 9000).url == "http://127.0.0.1:9000"
    assert ServerParams("h", 443, "root.pem", "server.pem", "key.pem").url == "https://h:443"
    assert ClientParams("h", 443, "root.pem").url == "https://h:443"
    assert ClientParams("::1", 8080).url == "http://[::1]:8080"


@pytest.mark.parametrize(
    "make",
    [
        lambda: ServerParams(hostnam="x"),  # type: ignore[call-arg]
        lambda: ServerParams(port=70000),
        lambda: ClientParams(port=0),
        lambda: ModelStoreConfig(lineage_length=-1),
        lambda: ModelStoreConfig(lineage_lenght=1),  # type: ignore[call-arg]
        lambda: TerminationSignals(federation_rounds=0),
        lambda: TerminationSignals(evaluation_metric_cutoff_score=float("nan")),
    ],
)
def test_the_python_classes_check_what_they_are_given(make: Any) -> None:
    """Unknown names and impossible values are refused where they are written, with a line for people."""
    with pytest.raises(ValidationError) as caught:
        make()
    assert all(line and "\n" not in line for line in explain(caught.value))


def test_configurations_cannot_be_changed() -> None:
    """What was checked stays as it was checked."""
    with pytest.raises(FrozenInstanceError):
        ServerParams().port = 5  # type: ignore[misc]
    config = RunConfig()
    with pytest.raises(ValidationError):
        config.seed = 5
    assert config == RunConfig()


def test_hints_and_nulls() -> None:
    """The nearest name, else all of them; maps that hold only nulls are left out."""
    assert nearest("FedAgv", ["FedAvg", "Krum"]) == "; did you mean FedAvg?"
    assert nearest("x", ["FedAvg", "Krum"]) == "; known: FedAvg, Krum"
    assert nearest("x", []) == ""
    assert without_nulls({"a": None, "b": {"c": None}, "d": {"e": 0}}) == {"d": {"e": 0}}
