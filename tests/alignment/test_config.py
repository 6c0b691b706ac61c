import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from alignment.config import PipelineConfig, commented_yaml, load_config, parse_config
from alignment.errors import ConfigError


def leaves(model=PipelineConfig, path=()):
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from leaves(annotation, (*path, name))
        else:
            yield (*path, name)


def nested(path, value):
    for part in reversed(path):
        value = {part: value}
    return value


def test_the_written_file_is_complete_and_reads_back_as_the_defaults():
    text = commented_yaml()
    assert load_config(text) == PipelineConfig()
    written = yaml.safe_load(text)
    for stage, key in leaves():
        assert key in written[stage]


def test_every_setting_is_explained_in_the_written_file():
    lines = commented_yaml().splitlines()
    for _, key in leaves():
        at = next(i for i, line in enumerate(lines) if line.startswith(f"  {key}:"))
        assert lines[at - 1].startswith("  # ")
        assert len(lines[at - 1]) > 12


def test_a_misspelt_key_is_an_error_that_names_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"match\.neigbours: .*did you mean 'neighbours'"):
        parse_config({"match": {"neigbours": 2}})
    with pytest.raises(ConfigError, match=r"rendr: .*did you mean 'render'"):
        parse_config({"rendr": {}})


@pytest.mark.parametrize(
    ("values", "field", "limit", "came"),
    [
        ({"relax": {"stiffness": -1}}, "relax.stiffness", "greater than 0", "-1"),
        ({"masks": {"mip": 99}}, "masks.mip", "less than or equal to 12", "99"),
        ({"render": {"interpolation": "best"}}, "render.interpolation", "'lanczos'", "best"),
        ({"match": {"neighbours": "many"}}, "match.neighbours", "integer", "many"),
        ({"relax": {"huber_px": float("nan")}}, "relax.huber_px", "finite", "nan"),
    ],
)
def test_an_absurd_value_is_an_error_that_names_field_value_and_range(values, field, limit, came):
    with pytest.raises(ConfigError) as error:
        parse_config(values)
    message = str(error.value)
    assert field in message
    assert limit in message
    assert came in message


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"long_range": [3]}, "above 3, the farthest of neighbours and retry_neighbours"),
        ({"long_range": [8, 8]}, "different numbers"),
        ({"long_range": [8, 20]}, r"\[20\] are no multiples of long_range_every=8"),
    ],
)
def test_long_range_matches_that_tie_nothing_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        parse_config({"match": settings})
    assert parse_config({"match": {"long_range": [8, 32]}}).match.long_range == (8, 32)


def test_levels_that_leave_gaps_or_get_coarser_are_refused():
    gap = {"mip": 1, "template_px": 16, "search_radius_px": 8, "node_spacing_px": 32}
    with pytest.raises(ConfigError, match="leaves gaps between templates"):
        parse_config({"match": {"levels": [gap]}})
    fine = gap | {"node_spacing_px": 8}
    with pytest.raises(ConfigError, match="coarse to fine"):
        parse_config({"match": {"levels": [fine, fine | {"mip": 3}]}})


@pytest.mark.parametrize("text", ["[1, 2]", "match: {", "!!python/object:os.system {}"])
def test_text_that_is_no_configuration_is_refused(text):
    with pytest.raises(ConfigError):
        load_config(text)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers()),
)


@given(st.sampled_from(sorted(leaves())), JUNK)
def test_junk_is_either_refused_in_our_words_or_a_value_that_survives_a_round_trip(path, junk):
    message, config = attempt(nested(path, junk))
    if config is None:
        assert path[0] in message
    else:
        assert parse_config(json.loads(config.model_dump_json())) == config


def attempt(values):
    try:
        return "", parse_config(values)
    except ConfigError as error:
        return str(error), None
