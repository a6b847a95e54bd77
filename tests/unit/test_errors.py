from vitral import errors


def test_every_error_has_the_exit_code_that_the_docstring_draws() -> None:
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        words = line.replace("├──", "").replace("└──", "").replace("│", "").split()
        if len(words) >= 2 and words[1].isdigit():
            drawn[words[0]] = int(words[1])
    real = {
        name: value.exit_code
        for name, value in vars(errors).items()
        if isinstance(value, type) and name != "VitralError"
    }
    assert drawn == real


def test_all_are_caught_as_one() -> None:
    leaves = [value for value in vars(errors).values() if isinstance(value, type)]
    assert all(issubclass(leaf, errors.VitralError) for leaf in leaves)
    assert issubclass(errors.SpecError, ValueError)
