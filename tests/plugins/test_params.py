import pytest
from airflow.sdk.definitions.param import ParamsDict
from airflow.sdk.exceptions import ParamValidationError
from pydantic import BaseModel

from alignment.config import PipelineConfig, parse_config
from alignment.errors import ConfigError
from petalign_airflow.params import nested, run_params

URIS = {"source": "s3://petalign/raw", "volume": "s3://petalign/out"}


def leaves(model: type[BaseModel]) -> list[str]:
    """Return stage.setting of every field below the stages, in order."""
    return [
        f"{stage}.{name}"
        for stage, field in model.model_fields.items()
        for name in field.annotation.model_fields
    ]


def test_every_setting_is_a_parameter_once_and_in_order():
    assert list(run_params()) == ["source", "volume", *leaves(PipelineConfig)]


def test_the_defaults_of_the_form_are_the_defaults_of_the_model():
    flat = {name: param.value for name, param in run_params().items() if name not in URIS}
    assert parse_config(nested(flat)) == PipelineConfig()


def test_defaults_pass_the_rules_of_the_form():
    assert ParamsDict(run_params() | URIS).validate().keys() == run_params().keys()


def test_changed_values_arrive_where_they_belong():
    levels = [{"mip": 3, "template_px": 32, "search_radius_px": 8, "node_spacing_px": 16}]
    values = URIS | {
        "match.neighbours": 3,
        "match.levels": levels,
        "match.refine": [],
        "volume.resolution_nm": [30.0, 8.0, 8.0],
        "render.interpolation": "cubic",
    }
    config = parse_config(nested(values))
    assert config.match.neighbours == 3
    assert [level.mip for level in config.match.levels] == [3]
    assert config.volume.resolution_nm == (30.0, 8.0, 8.0)
    assert config.render.interpolation == "cubic"


ABSURD = [
    ("match.neighbours", 0),
    ("match.neighbours", -1),
    ("match.neighbours", 10**9),
    ("match.neighbours", "many"),
    ("match.neighbours", None),
    ("match.levels", []),
    ("match.levels", [{"mip": 2}]),
    ("match.levels", [{"mip": 2, "template_px": -1, "search_radius_px": 1, "node_spacing_px": 1}]),
    ("match.levels", "coarse"),
    ("volume.resolution_nm", [40.0, 4.0]),
    ("volume.resolution_nm", [40.0, 0.0, 4.0]),
    ("volume.aligned_shard", [32, 2048, 2048, 1]),
    ("filter.min_score", 1.5),
    ("relax.poisson_ratio", 0.5),
    ("render.interpolation", "magic"),
    ("relax.stiffness", {"a": 1}),
]


@pytest.mark.parametrize(("name", "value"), ABSURD)
def test_an_absurd_value_is_refused_by_the_form_and_by_the_model(name, value):
    params = ParamsDict(run_params())
    with pytest.raises(ParamValidationError, match=name):
        params[name] = value
    with pytest.raises(ConfigError, match=name):
        parse_config(nested({name: value}))


@pytest.mark.parametrize(
    "uri", ["", "raw.zarr", "/data", "http://x/y", "file://x", "s3://a/{{ b }}"]
)
def test_the_form_refuses_what_is_no_uri(uri):
    with pytest.raises(ParamValidationError, match="source"):
        ParamsDict(run_params())["source"] = uri


def test_a_run_without_source_is_refused():
    with pytest.raises(ParamValidationError, match="No value passed"):
        ParamsDict(run_params() | {"volume": URIS["volume"]}).validate()


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("match.neighbors", "did you mean 'match.neighbours'"),
        ("match", "parameters of their own: match.neighbours"),
        ("sauce", "did you mean 'source'"),
        ("match.levels.0.mip", "no such parameter"),
        ("zzz", "written like 'match.neighbours'"),
    ],
)
def test_an_unknown_key_is_named_with_a_way_out(key, hint):
    with pytest.raises(ConfigError, match=f"^{key}: .*{hint}"):
        nested(URIS | {key: 1})


def test_the_form_can_draw_every_parameter():
    """Airflow's form takes the widget from `type` and `items` on the first level, and no $ref."""
    for name, param in run_params().items():
        assert "$ref" not in str(param.schema), name
        assert param.description, name
        kind = param.schema["type"]
        if "array" in kind:
            assert param.schema["items"]["type"] in ("integer", "number", "object"), name
        else:
            assert kind in ("integer", "number", "string"), name
        if name not in URIS:
            stage, words = param.schema["section"].split(": ", 1)
            assert stage == name.partition(".")[0]
            assert len(words) > 15, "a section says what its stage is about"


def test_a_dag_with_parameters_of_its_own_refuses_what_it_does_not_know():
    own = {"prefix": "s3://em/night/", "match.neighbours": 3}
    assert nested(own, besides=("prefix",)) == {"match": {"neighbours": 3}}
    with pytest.raises(ConfigError, match="prefx: no such parameter; did you mean 'prefix'"):
        nested({"prefx": "s3://em/"}, besides=("prefix",))
    with pytest.raises(ConfigError, match="source: no such parameter"):
        nested({"source": "s3://em/"}, besides=("prefix",))
