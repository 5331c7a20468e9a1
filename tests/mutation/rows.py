"""One-line faults in rows that users bring, and in names and texts from outside; a part of `tests.mutation.faults`."""

from __future__ import annotations

from tests.mutation.fault import Fault

HERE = "environment/swe"
EXPERT, HELD_OUT, SPECS = f"{HERE}/expert.py", f"{HERE}/dataset/held_out.py", f"{HERE}/dataset/install_specs.py"
REPOSITORIES, VERIFY = f"{HERE}/dataset/checkout.py", f"{HERE}/dataset/validate.py"


def of(module: str, words: str) -> tuple[str, ...]:
    return (f"tests/environment/{module}.py", "-k", words)


ROW_FAULTS = [
    Fault("cut JSON lines where a text holds a line separator", "system/files.py", '.split("\\n") if line.strip()]',
          ".splitlines() if line.strip()]", of("swe/test_paths", "line_of_json")),
    Fault("take an identifier for the name of a file", "system/files.py", "if PLAIN_NAME.fullmatch(identifier):",
          "if PLAIN_NAME.match(identifier):", of("swe/test_paths", "identifier")),
    Fault("call tools by a path that is not quoted", f"{HERE}/actions.py", "shlex.quote(str(tools / name))",
          "str(tools / name)", of("swe/test_paths", "tools_work and SubprocessSandbox")),
    Fault("number lines where Python counts none", f"{HERE}/tools/view.py", 'in io.StringIO(source, newline="")]',
          "in source.splitlines()]", of("swe/test_paths", "Python_counts")),
    Fault("repeat an action without effect for ever", EXPERT, "return None if action == last else action",
          "return action", of("swe/test_expert", "without_effect")),
    Fault("leave a file's name unquoted", EXPERT, 'return shlex.quote(f"./{path}" if path.startswith("-") else path)',
          "return path", of("swe/test_expert", "any_name")),
    Fault("begin a long file again and again", EXPERT, "start = len(there) if wanted.startswith(there) else 0",
          "start = 0", of("swe/test_expert", "any_content")),
    Fault("edit a file that is no text", EXPERT, "(file.data.decode()) for file",
          '(file.data.decode(errors="replace")) for file', of("swe/test_expert", "any_content")),
    Fault("deal copies of test sets into training", HELD_OUT, "return part not in TRAINING_PARTS", "return False",
          of("swe/dataset/test_rows", "full_names")),
    Fault("take back what is held out without being told", HELD_OUT, "elif undo and not row.held_out",
          "elif not row.held_out", of("swe/dataset/test_rows", "said_and_undone")),
    Fault("let one set take back what another one holds out", HELD_OUT, "sources.remove(key)", "sources.clear()",
          of("swe/dataset/test_rows", "said_and_undone")),
    Fault("guess how a repository is installed", SPECS, "number_of(spec.since)), None)",
          'number_of(spec.since)), Spec("0", "", (".", "pytest")))', of("swe/dataset/test_rows", "is_not_guessed")),
    Fault("read a version in a recipe as a number", f"{HERE}/dataset/recipes.py", "Loader=yaml.BaseLoader",
          "Loader=yaml.SafeLoader", of("swe/dataset/test_rows", "recipes_are_merged")),
    Fault("overlook a renamed file of tests", VERIFY, "path for path, file in tests.items() if file is not None",
          'path for path in re.findall("b/(.+)", "".join(re.findall("[+]{3} .+", row.test_patch)))',
          of("swe/dataset/test_rows", "only_renamed")),
    Fault("call a patch corrupt for its last newline", REPOSITORIES, 'patch += "" if patch.endswith("\\n") else "\\n"',
          'patch += ""', of("swe/dataset/test_rows", "only_renamed")),
    Fault("show a statement that is null", VERIFY, "if not row.problem_statement.strip() and not row.is_bug:", "if False:",
          of("swe/dataset/test_rows", "verified_and_played")),
    Fault("do not trust the clone of another owner", REPOSITORIES, '"[safe]", "directory = *", ', "",
          of("swe/dataset/test_rows", "another_owner")),
    Fault("fetch branches alone", REPOSITORIES, 'f"+{commit}:refs/kept/{commit}"', '"HEAD"',
          of("swe/dataset/test_rows", "fetched_again")),
    Fault("show the last line of git alone", REPOSITORIES, "{late}{output or error}",
          "{late}{(output or str(error)).splitlines()[-1]}", of("swe/dataset/test_rows", "all_that_git")),
    Fault("count lost tests as kept", f"{HERE}/dataset/validated_rows.py", "len(found.pass_to_pass))", "len(row.pass_to_pass))",
          of("swe/dataset/test_rows", "verified_and_played")),
    Fault("let a row's tests run for ever", VERIFY, "run_tests(sandbox, command, self._left)",
          "run_tests(sandbox, command, 900.0)", of("swe/dataset/test_rows", "have_their_time")),
    Fault("leave classes among the arguments of a world as text", "tasks.py", "dict(vars(parser.instantiate(parsed)))",
          "dict(parsed.as_dict())", of("test_tasks", "made_as_fit")),
]  # fmt: skip
