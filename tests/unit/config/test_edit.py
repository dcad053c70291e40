"""Chosen values are written into a configuration, and everything else stays as its owner wrote it."""

import tomllib

import pytest

from modelyard.config.edit import ModelEdit, NotEditable, edited


def test_values_are_replaced_where_they_stand():
    text = """\
# Mine.
[[models]]
model_id = "a" # the first

[models.device]
max_seq_len = "auto"   # as long as it goes
cpu = true

[models.quantization]
quant = "auto"
"""
    assert edited(text, {0: ModelEdit(8192, "8")}) == text.replace('"auto"   #', "8192   #").replace('"auto"', '"8"')


def test_nothing_changes_without_edits():
    text = '[[models]]\r\nmodel_id = "a"  \r\n# end'
    assert edited(text, {}) == text
    assert edited(text, {0: ModelEdit()}) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '[[models]]\nmodel_id = "a"\n[models.device] # here\ncpu = true\n',
            '[[models]]\nmodel_id = "a"\n[models.device] # here\nmax_seq_len = 5120\ncpu = true\n',
        ),
        (
            '[[models]]\nmodel_id = "a"\n[models.device]',
            '[[models]]\nmodel_id = "a"\n[models.device]\nmax_seq_len = 5120\n',
        ),
        (
            '[[models]]\n  model_id = "a"\n  device.cpu = true\n',
            '[[models]]\n  model_id = "a"\n  device.max_seq_len = 5120\n  device.cpu = true\n',
        ),
        (
            '[[models]]\nmodel_id = "a"\ndevice = { cpu = true }\n',
            '[[models]]\nmodel_id = "a"\ndevice = { max_seq_len = 5120, cpu = true }\n',
        ),
        (
            '[[models]]\nmodel_id = "a"\ndevice = {}\n',
            '[[models]]\nmodel_id = "a"\ndevice = { max_seq_len = 5120}\n',
        ),
        (
            '[[models]]\nmodel_id = "a" # a\n\n# The other one.\n[[models]]\nmodel_id = "b"\n',
            '[[models]]\nmodel_id = "a" # a\n\n[models.device]\nmax_seq_len = 5120\n\n# The other one.\n[[models]]\n'
            'model_id = "b"\n',
        ),
        (
            '[[models]]\nmodel_id = "a"\n[models.sampling]\nseed = 1\n[server]\nport = 1',
            '[[models]]\nmodel_id = "a"\n[models.sampling]\nseed = 1\n\n[models.device]\nmax_seq_len = 5120\n[server]\n'
            "port = 1",
        ),
        (
            'models = [{ model_id = "a" }]\n',
            'models = [{ device = { max_seq_len = 5120 }, model_id = "a" }]\n',
        ),
        (
            '[[models]]\r\nmodel_id = "a"',
            '[[models]]\r\nmodel_id = "a"\r\n\r\n[models.device]\r\nmax_seq_len = 5120\r\n',
        ),
    ],
)
def test_a_key_is_added_in_the_way_that_the_file_is_written(before, after):
    assert edited(before, {0: ModelEdit(5120)}) == after
    assert edited(after, {0: ModelEdit(5120)}) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('[models.quantization]\nquant = "auto"\nimatrix = "x"\n', '[models.quantization]\nimatrix = "x"\n'),
        ('[models.quantization]\n  quant = "auto"  # why\n', "[models.quantization]\n  # why\n"),
        ("quantization.quant = 'auto'\nalias = 'b'\n", "alias = 'b'\n"),
        ('quantization = { quant = "auto", imatrix = "x" }\n', 'quantization = { imatrix = "x" }\n'),
        ('quantization = { imatrix = "x", quant = "auto" }\n', 'quantization = { imatrix = "x" }\n'),
        ('quantization = { quant = "auto" }\n', "quantization = { }\n"),
    ],
)
def test_full_precision_takes_the_key_out_and_leaves_its_comment(before, after):
    head = '[[models]]\nmodel_id = "a"\n'
    changed = edited(head + before, {0: ModelEdit(quant="")})
    assert tomllib.loads(changed) == tomllib.loads(head + after)
    assert changed.replace(" ", "") == (head + after).replace(" ", "")


def test_each_model_has_its_own():
    text = "".join(f'[[models]]\nmodel_id = "{name}"\n[models.device]\ncpu = true\n' for name in "abc")
    changed = tomllib.loads(edited(text, {0: ModelEdit(4096), 2: ModelEdit(8192, "4")}))
    assert [model["device"].get("max_seq_len") for model in changed["models"]] == [4096, None, 8192]
    assert changed["models"][2]["quantization"] == {"quant": "4"}


def test_what_cannot_be_edited_without_a_risk_is_refused():
    # A line cannot be added within an inline table.
    text = 'models = [\n  { "model_id" = "a", "device" . "cpu" = true },\n]\n'
    with pytest.raises(NotEditable):
        edited(text, {0: ModelEdit(4096)})
