"""One-line faults in the judging of repairs and in what keeps one episode from another; a part of `tests.faults`."""

from __future__ import annotations

from tests.fault import Fault
from tests.repair_faults import BUBBLEWRAP, ENGINE, HERE, REPAIR, ROWS, SANDBOX

OF_BUBBLE = (SANDBOX, "-k", "BubblewrapSandbox and (host_cannot or close_the)")
OF_CONTAINER = (SANDBOX, "-k", "DockerSandbox and (host_cannot or stays_beside or kills_the_shell)")
JUDGED = (*REPAIR, "-k", "never_started or other_names or what_the_program or names_what")
BUG_ROWS = (*ROWS, "-k", "is_the_bug")
CHEATS = (*REPAIR, "-k", "less and (expected or entry or plugin or where)")
SYNTAX, EXPERT = ("tests/environment/swe/test_syntax.py",), ("tests/environment/swe/test_expert.py",)

CHEAT_FAULTS = [
    Fault("show a bubble the host's packages", BUBBLEWRAP, "else installed_beside(self.runtime):", "else ():", OF_BUBBLE),
    Fault("let a command close the work folder", f"{HERE}/sandbox/work_folder.py", "mode=1777,nosuid",
          "mode=1777,uid=65534,nosuid", OF_BUBBLE),
    Fault("show a container the host's packages", ENGINE, "dict.fromkeys(installed_beside(runtime),", "dict.fromkeys((),",
          OF_CONTAINER),
    Fault("leave shared memory to the next episode", ENGINE, '". /tmp /dev/shm"', '". /tmp"', OF_CONTAINER),
    Fault("believe who has killed his own guard", ENGINE,
          "self.kill()  # the shell that waited", "pass  # the shell that waited", OF_CONTAINER),
    Fault("take any failure that says it was expected for one", f"{HERE}/results.py",
          ' and report.nodeid in expected_to_fail', "", CHEATS),
    Fault("call tests that never started failed", f"{HERE}/results.py", "if BEGUN not in done.output or", "if", JUDGED),
    Fault("count tests whose names change", f"{HERE}/results.py",
          'unsteady = {test.partition("[")[0] for test in first ^ second}', "unsteady = set()", JUDGED),
    Fault("load plugins that an agent has written", f"{HERE}/grading.py", " or LOADED_UNSEEN.search(path):", ":", CHEATS),
    Fault("let a file stand where tests should be", f"{HERE}/grading.py", "if path not in folders and", "if", CHEATS),
    Fault("pay for a new file that nobody reads", f"{HERE}/submission.py",
          "does_something(counted, before)", "bool(change)", JUDGED),
    Fault("serve two versions of a package to two splits", f"{HERE}/env.py", 'package.partition("==")[0]', "package", JUDGED),
    Fault("leave the repository in its virtual environment", f"{HERE}/runtimes.py",
          "_forget_what_is_repaired(venv)\n", "\n", BUG_ROWS),
    Fault("train on test sets", f"{HERE}/catalogue.py", '("test" if held_out else', '("test" if not path else', BUG_ROWS),
    Fault("take SWE-smith's bug for its fix", f"{HERE}/verify.py",
          "start = change if row.is_bug else {}", "start = {}", BUG_ROWS),
    Fault("break a program on the way to its fix", f"{HERE}/expert.py",
          'path.endswith(".py"))', "False)", EXPERT),
    Fault("parse in several threads at once", f"{HERE}/syntax.py", "with _ONE_AT_A_TIME:", "if True:", SYNTAX),
]  # fmt: skip
