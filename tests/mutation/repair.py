"""One-line faults in the repairing of code and its sandboxes; a part of `tests.mutation.faults`."""

from __future__ import annotations

from tests.mutation.fault import Fault

SANDBOX = "tests/sandbox/test_sandbox.py"
BUBBLE, CONTAINER = (SANDBOX, "-k", "BubblewrapSandbox"), (SANDBOX, "-k", "DockerSandbox")
OWNER = (SANDBOX, "-k", "BubblewrapSandbox and nothing_is_left")
REPAIR, ROWS = ("tests/environment/swe/test_swe.py",), ("tests/environment/swe/dataset/test_rows.py",)
CHEATS = ("tests/environment/swe/test_swe.py", "-k", "had_for_less")
TIMES = (*REPAIR, "-k", "have_their_time")
BLAME, SAME = ("tests/environment/swe/test_grading.py", "-k", "to_blame"), (*REPAIR, "-k", "made_anew")
NOBODY = ("tests/environment/swe/test_grading.py", "-k", "nobodys_fault")
MADE = ("tests/environment/swe/generate/test_generator.py",)
TURNS = ("tests/sandbox/test_concurrency.py",)
BUGS, WORTH = ("tests/environment/swe/generate/test_mutations.py",), ("tests/reward/test_repair.py",)
HERE = "environment/swe"
GRADING, SLOT = f"{HERE}/grading.py", "sandbox/concurrency.py"
BUBBLEWRAP, ENGINE = "sandbox/bubblewrap.py", "sandbox/docker.py"

REPAIR_FAULTS = [
    Fault("blame a repair for an engine that failed once", GRADING, "for _ in range(2):", "for _ in range(1):", BLAME),
    Fault("take what fails once for a bug", f"{HERE}/generate/generator.py", "second.passed | elsewhere)", "first.passed)", MADE),
    Fault("hash how fast a machine was", f"{HERE}/task.py", 'del fields["seconds"]', "pass", SAME),
    Fault("serve whoever looks first", SLOT, "flock(line, fcntl.LOCK_EX)", "flock(line, fcntl.LOCK_SH)", TURNS),
    Fault("train on a row that is held out", f"{HERE}/dataset/validated_rows.py",
          "row.instance_id in held_out", "row.held_out", ROWS),
    Fault("let every command begin at once", SLOT, "fcntl.LOCK_EX | fcntl.LOCK_NB", "fcntl.LOCK_SH", TURNS),
    Fault(
        "count what a command has waited",
        "sandbox/base.py",
        "with slot(self.allowance.at_once):\n            start = time.monotonic()\n",
        "start = time.monotonic()\n        with slot(self.allowance.at_once):\n",
        TURNS,
    ),
    Fault("forget the time of earlier commands", f"{HERE}/env.py", "playing.spent += done", "playing.spent = done", TIMES),
    Fault(
        "leave the network to a bubble",
        "sandbox/bubblewrap.py",
        "--unshare-all",
        "--unshare-all --share-net",
        BUBBLE,
    ),
    Fault(
        "leave a bubble's root writable",
        "sandbox/bubblewrap.py",
        '"--remount-ro", "/"',
        '"--dir", "/tmp"',
        BUBBLE,
    ),
    Fault(
        "let bubblewrap wait as a process of its own",
        "sandbox/bubblewrap.py",
        '"--clearenv", "--as-pid-1"',
        '"--clearenv"',
        BUBBLE,
    ),
    Fault(
        "put a bubble in no control group",
        "sandbox/bubblewrap.py",
        "echo 0 > {folder}/cgroup.procs",
        "true {folder}",
        BUBBLE,
    ),
    Fault("let what has ended its watcher run on in a container", ENGINE, "code < SIGNALLED", "code != KILLED", CONTAINER),
    Fault("keep what is in the kernel for the next episode", ENGINE, ': NO_MAILBOXES,', ": {},", CONTAINER),
    Fault("blame a repair whose sandbox is broken", "sandbox/base.py", "if not written.startswith(BEGUN):",
          "if False:", NOBODY),
    Fault("let a repair that keeps written tests from starting be the engine's fault", f"{HERE}/generated_tests.py",
          "for _ in range(2):", "for _ in range(0):", BLAME),
    Fault(
        "leave the network to a container",
        "sandbox/docker.py",
        '"network_mode": "none"',
        '"network_mode": "host"',
        CONTAINER,
    ),
    Fault(
        "leave a container's processes running",
        "sandbox/docker.py",
        "kill -9 -1; cat >/dev/null; exit $code",
        "cat >/dev/null; exit $code",
        CONTAINER,
    ),
    Fault(
        "run a container's commands as root",
        "sandbox/docker.py",
        'NOBODY = "65534:65534"',
        'NOBODY = "0:0"',
        CONTAINER,
    ),
    Fault(
        "forget what came with the headers",
        "sandbox/docker_exec.py",
        "return bytearray(rest)",
        "return bytearray()",
        ("tests/sandbox/test_docker_exec.py",),
    ),
    Fault("tell the janitor nothing", "sandbox/cleanup.py", "there[kind, name] = None", "pass", OWNER),
    Fault(
        "lose the end of much output",
        "sandbox/output.py",
        "del self._tail[:surplus]",
        "del self._tail[-surplus:]",
        BUBBLE,
    ),
    Fault(
        "grade with the agent's tests",
        f"{HERE}/grading.py",
        "if is_test(path) or CONFIGURES.search(path) or NO_SOURCE.search(path):",
        "if False:",
        CHEATS,
    ),
    Fault(
        "grade in the agent's own folder",
        f"{HERE}/cheat_check.py",
        "self.sandbox.reset(packed(changed(tree, marked(tree, self.problem.fail_to_pass))))",
        "pass",
        CHEATS,
    ),
    Fault(
        "count a missing test as nearly passed",
        f"{HERE}/pytest_runner.py",
        "return len(wanted & set(passed)) / len(wanted)",
        "return 1 - len(wanted - set(passed) & wanted) / (len(wanted) + 1)",
        REPAIR,
    ),
    Fault(
        "let one of several tests of a name do",
        f"{HERE}/pytest_runner.py",
        'good.get(short, True) and verdict == "passed"',
        'good.get(short, False) or verdict == "passed"',
        (*REPAIR, "-k", "cut_name"),
    ),
    Fault(
        "count a skipped test as passed",
        f"{HERE}/pytest_runner.py",
        'verdict == "passed"',
        'verdict != "failed"',
        (*REPAIR, "-k", "named"),
    ),
    Fault(
        "keep a bug that no test notices",
        f"{HERE}/generate/generator.py",
        "if tests <= first.passed:",
        "if not tests:",
        MADE,
    ),
    Fault(
        "play the first of several commands",
        f"{HERE}/actions.py",
        "if len(blocks) > 1:",
        "if len(blocks) > 9:",
        (*REPAIR, "-k", "commands_and_tools or one_command"),
    ),
    Fault("show the tests a row is graded with", f"{HERE}/dataset/validate.py", "start=start,", "start=tests,", ROWS),
    Fault("believe a row's list of what passes", f"{HERE}/dataset/validate.py", "& before.always & after.always", "", ROWS),
    Fault("take a row whose tests pass at once", f"{HERE}/dataset/validate.py", " and test not in before.ever", "", ROWS),
    Fault(
        "forget files of a repository that its archives leave out",
        f"{HERE}/dataset/checkout.py",
        '_git("-C", name, "checkout", "--quiet", "--detach", commit, seconds=seconds)',
        '_git("-C", name, "checkout", "--quiet", commit, "--", "little", seconds=seconds)',
        ROWS,
    ),
    Fault(
        "pay a repair for tests that passed before",
        "reward/repair.py",
        "(passed - before) / (1.0 - before)",
        "passed",
        WORTH,
    ),
    Fault(
        "swap an operand with its bracket",
        f"{HERE}/generate/operators.py",
        'if not set("()[]{}") & set(source.text[b:c]):',
        "if True:",
        BUGS,
    ),
    Fault(
        "count columns in characters",
        f"{HERE}/generate/operators.py",
        'len(self._bytes[line - 1][:column].decode(errors="replace"))',
        "column",
        BUGS,
    ),
]  # fmt: skip
