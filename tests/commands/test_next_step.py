from autocrossdim.commands.next_step import next_step


def test_the_next_command_can_be_copied_to_a_shell() -> None:
    assert next_step("train", "my data/Dataset001_A", work="w") == (
        "Next: autocrossdim train 'my data/Dataset001_A' --work w"
    )
    assert next_step("predict", "1", "-i", "IMAGES") == "Next: autocrossdim predict 1 -i IMAGES"
