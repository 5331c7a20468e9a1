"""One-line faults in the judging of repairs and in what keeps one episode from another; a part of `tests.mutation.faults`."""

from __future__ import annotations

from tests.mutation.fault import Fault
from tests.mutation.repair import BUBBLEWRAP, ENGINE, HERE, REPAIR, ROWS, SANDBOX

OF_BUBBLE = (SANDBOX, "-k", "BubblewrapSandbox and (host_cannot or close_the)")
OF_CONTAINER = (SANDBOX, "-k", "DockerSandbox and (host_cannot or stays_beside or kills_the_shell)")
JUDGED = (*REPAIR, "-k", "never_started or other_names or what_the_program or names_what")
BUG_ROWS = (*ROWS, "-k", "is_the_bug")
CHEATS = (*REPAIR, "-k", "less and (expected or entry or plugin or where)")
UNEARNED = "tests/environment/swe/test_cheat_check.py"
UNSEEN, HONEST = (
    (UNEARNED, "-k", "Subprocess and not_seen"),
    (UNEARNED, "-k", "Subprocess and (settings or lets_its_own)"),
)
ODD, FOR_ONE = (UNEARNED, "-k", "odd or (Subprocess and raises)"), (UNEARNED, "-k", "Subprocess and (plugin and one)")
SEEN, REASON = (UNEARNED, "-k", "Subprocess and (tests and seen and only)"), (UNEARNED, "-k", "reason")
COUNTED = ("tests/evaluation/test_metrics.py", "-k", "cheated")
SYNTAX, EXPERT = ("tests/environment/swe/test_python_ast.py",), ("tests/environment/swe/test_expert.py",)

CHEAT_FAULTS = [
    Fault("show a bubble the host's packages", BUBBLEWRAP, "else installed_beside(self.runtime):", "else ():", OF_BUBBLE),
    Fault("let a command close the work folder", "sandbox/work_folder.py", "mode=1777,nosuid",
          "mode=1777,uid=65534,nosuid", OF_BUBBLE),
    Fault("show a container the host's packages", ENGINE, "dict.fromkeys(installed_beside(runtime),", "dict.fromkeys((),",
          OF_CONTAINER),
    Fault("leave shared memory to the next episode", ENGINE, '". /tmp /dev/shm"', '". /tmp"', OF_CONTAINER),
    Fault("believe who has killed his own guard", ENGINE,
          "self.kill()  # the shell that waited", "pass  # the shell that waited", OF_CONTAINER),
    Fault("take any failure that says it was expected for one", f"{HERE}/in_sandbox/verdicts.py",
          "expected = expected and report.nodeid in self._expected_to_fail", "pass", CHEATS),
    Fault("call tests that never started failed", f"{HERE}/pytest_runner.py", "if BEGUN not in done.output or", "if", JUDGED),
    Fault("count tests whose names change", f"{HERE}/pytest_runner.py",
          'unsteady = {test.partition("[")[0] for test in first ^ second}', "unsteady = set()", JUDGED),
    Fault("let a file stand where tests should be", f"{HERE}/grading.py", "if path not in folders and", "if", CHEATS),
    Fault("pay for a new file that nobody reads", "environment/swe/grading.py",
          "does_something(counted, before)", "bool(change)", JUDGED),
    Fault("serve two versions of a package to two splits", f"{HERE}/env.py", 'package.partition("==")[0]', "package", JUDGED),
    Fault("leave the repository in its virtual environment", f"{HERE}/dataset/venv.py",
          "_forget_what_is_repaired(venv)\n", "\n", BUG_ROWS),
    Fault("train on test sets", f"{HERE}/splits.py", '("test" if held_out else', '("test" if not path else', BUG_ROWS),
    Fault("take SWE-smith's bug for its fix", f"{HERE}/dataset/validate.py",
          "start = change if row.is_bug else {}", "start = {}", BUG_ROWS),
    Fault("break a program on the way to its fix", f"{HERE}/expert.py",
          'path.endswith(".py"))', "False)", EXPERT),
    Fault("parse in several threads at once", f"{HERE}/python_ast.py", "with _ONE_AT_A_TIME:", "if True:", SYNTAX),
    Fault("start Python with the repository on its path", f"{HERE}/pytest_runner.py",
          'export PYTHONPATH="$T"\n', 'export PYTHONPATH="$T:$PYTHONPATH"\n', UNSEEN),
    Fault("keep the repository from processes of its tests", f"{HERE}/in_sandbox/start.py",
          'os.environ["PYTHONPATH"] = before', "pass", HONEST),
    Fault("let python -m put the repository first", f"{HERE}/in_sandbox/start.py",
          "sys.meta_path.insert(0, hidden)", "sys.meta_path.append(hidden)",
          (UNEARNED, "-k", "Subprocess and stays_hidden")),
    Fault("overlook the classes of warnings that filters name", f"{HERE}/in_sandbox/start.py",
          "found.update(WARNED.findall(settings() + command()))", "pass", HONEST),
    Fault("keep pytest's cache in the repository", f"{HERE}/in_sandbox/start.py",
          "os.environ[OPTIONS] = f\"{options or ''} -o cache_dir={here}/cache\"", "pass", HONEST),
    Fault("call a repository's own way a cheat", f"{HERE}/cheat_check.py",
          "and odd - oddities(self.run(self.reference))", "and odd", HONEST),
    Fault("let the test that must fail pass", f"{HERE}/cheat_check.py",
          '[CANARY] if ran.verdicts and ran.canary != "failed" else []', "[]", ODD),
    Fault("overlook that pytest was patched", f"{HERE}/in_sandbox/verdicts.py", "self._patched.update(", "list(", ODD),
    Fault("believe a test that passes by its name", f"{HERE}/cheat_check.py",
          "if not broken or test not in", "if broken or test not in", FOR_ONE),
    Fault("grade with tests that an agent has seen", f"{HERE}/cheat_check.py",
          "changed(tree, marked(tree, self.problem.fail_to_pass))", "tree", SEEN),
    Fault("pay for what was cheated", f"{HERE}/grading.py", "if allowed and trial.is_cheated(tree, ran):", "if False:", FOR_ONE),
    Fault("print pytest's last line for its error", f"{HERE}/pytest_runner.py",
          "[line for line in lines if ERROR.match(line)]", "[]", REASON),
    Fault("count every repair as cheated", "evaluation/metrics.py",
          'numbers["cheated"] = total["cheated"]', 'numbers["cheated"] = total["judged"]', COUNTED),
]  # fmt: skip
