"""tally.py FOLDER: sums what the runners reported there (JUnit files of pytest, GoogleTest, ctest;
NAME.step files with "passed", "failed" or "skipped") into one line. Exit status 1 if anything
failed, and if nothing passed."""

import pathlib
import sys
import xml.etree.ElementTree as xml


def cases(path):
    """"passed", "failed" or "skipped" of each test case in a JUnit file."""
    try:
        root = xml.parse(path).getroot()
    except xml.ParseError:
        yield path.stem, "failed"
        return
    for case in root.iter("testcase"):
        kinds = {child.tag for child in case}
        name = f"{case.get('classname', '')}.{case.get('name')}"
        if kinds & {"failure", "error"} or case.get("status") == "fail":
            yield name, "failed"
        elif "skipped" in kinds or case.get("result") in ("skipped", "suppressed") or case.get(
                "status") in ("notrun", "disabled"):
            yield name, "skipped"
        else:
            yield name, "passed"


def tally(folder):
    counts, failures = {"passed": 0, "failed": 0, "skipped": 0}, []

    def count(name, outcome):
        counts[outcome] += 1
        if outcome == "failed":
            failures.append(name)
    seen = set()
    for path in sorted(folder.rglob("*.xml")):
        if path.name == "ctest.xml" or path.stem.endswith("-again"):
            continue
        outcomes = list(cases(path))
        again = path.with_name(f"{path.stem}-again.xml")
        if again.exists():
            second = dict(cases(again))
            for number, (name, outcome) in enumerate(outcomes):
                if outcome == "failed" and second.get(name) == "passed":
                    print("PASSED ONLY THE SECOND TIME", f"{path.stem}: {name}")
                    outcomes[number] = name, "passed"
        seen.add((path.parent, path.stem, any(o == "failed" for _, o in outcomes)))
        for name, outcome in outcomes:
            count(f"{path.stem}: {name}", outcome)
    # A test program that ended before it could write its file, or badly after it.
    for path in folder.rglob("ctest.xml"):
        for name, outcome in cases(path):
            program = name.rpartition(".")[2]
            if outcome == "failed" and (path.parent, program, True) not in seen:
                count(f"{program}: ended badly", "failed")
    for path in sorted(folder.rglob("*.step")):
        count(path.stem, path.read_text().strip())
    return counts, failures


def main():
    counts, failures = tally(pathlib.Path(sys.argv[1]))
    for name in failures:
        print("FAILED", name)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
