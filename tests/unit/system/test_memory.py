"""How much memory there is, on machines that a test makes up."""

import pytest

from modelyard.system.memory import available_bytes, budget_bytes, total_bytes

GIB = 2**30


@pytest.fixture
def machine(tmp_path):
    """A machine of 16 GiB of which 10 are free, in no control group."""

    class Machine:
        meminfo = tmp_path / "meminfo"
        own_cgroups = tmp_path / "cgroup"
        cgroups = tmp_path / "sys"

        def group(self, path, **files):
            folder = self.cgroups / path
            folder.mkdir(parents=True, exist_ok=True)
            for name, value in files.items():
                (folder / name.replace("__", ".")).write_text(f"{value}\n")

        def read(self, what):
            return what(self.meminfo, self.own_cgroups, self.cgroups) / GIB

    made = Machine()
    made.meminfo.write_text(f"MemTotal: {16 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {10 * 2**20} kB\n")
    made.own_cgroups.write_text("0::/\n")
    made.cgroups.mkdir()
    return made


def test_without_control_groups_the_machine_decides(machine):
    assert (machine.read(total_bytes), machine.read(available_bytes)) == (16, 10)
    machine.own_cgroups.unlink()
    assert (machine.read(total_bytes), machine.read(available_bytes)) == (16, 10)


def test_a_limit_counts_and_file_pages_that_can_be_dropped_do_not(machine):
    machine.own_cgroups.write_text("0::/box\n")
    stat = f"anon 5\ninactive_file {GIB}\nslab 7"
    machine.group("box", memory__max=4 * GIB, memory__current=2 * GIB, memory__stat=stat)
    assert (machine.read(total_bytes), machine.read(available_bytes)) == (4, 3)


@pytest.mark.parametrize(("mapped_gib", "available_gib"), [(0, 3), (1, 2), (9, 1)])
def test_file_pages_that_were_used_more_than_once_can_be_dropped_unless_they_are_mapped(
    machine, mapped_gib, available_gib
):
    machine.own_cgroups.write_text("0::/box\n")
    stat = f"inactive_file 0\nactive_file {2 * GIB}\nfile_mapped {mapped_gib * GIB}"
    machine.group("box", memory__max=4 * GIB, memory__current=3 * GIB, memory__stat=stat)
    assert machine.read(available_bytes) == available_gib


def test_the_limit_of_a_group_around_it_counts_too(machine):
    machine.own_cgroups.write_text("0::/outer/inner\n")
    machine.group("outer", memory__max=3 * GIB, memory__current=2 * GIB, memory__stat="inactive_file 0")
    machine.group("outer/inner", memory__max="max", memory__current=GIB, memory__stat="inactive_file 0")
    assert (machine.read(total_bytes), machine.read(available_bytes)) == (3, 1)


def test_inside_a_namespace_the_root_is_the_group_itself_and_the_soft_limit_counts(machine):
    machine.group("", memory__max="max", memory__high=2 * GIB, memory__current=0, memory__stat="inactive_file 0")
    assert machine.read(total_bytes) == 2


def test_the_first_version_of_control_groups_is_read_too(machine):
    machine.own_cgroups.write_text("5:cpu,cpuacct:/x\n9:memory:/box\n")
    machine.group(
        "memory/box",
        memory__limit_in_bytes=6 * GIB,
        memory__usage_in_bytes=5 * GIB,
        memory__stat=f"total_inactive_file {2 * GIB}",
    )
    assert (machine.read(total_bytes), machine.read(available_bytes)) == (6, 3)


def test_a_group_that_uses_more_than_it_may_leaves_nothing(machine):
    machine.own_cgroups.write_text("0::/box\n")
    machine.group("box", memory__max=GIB, memory__current=2 * GIB, memory__stat="inactive_file 0")
    assert machine.read(available_bytes) == 0


def test_without_meminfo_all_of_the_machine_has_to_do(machine):
    machine.meminfo.unlink()
    assert machine.read(total_bytes) == machine.read(available_bytes) > 0


def test_where_meminfo_does_not_tell_what_is_available_all_of_the_machine_has_to_do(machine):
    machine.meminfo.write_text("MemTotal: 1 kB\nMemFree: 1 kB\n")
    assert machine.read(total_bytes) * GIB == 1024
    assert machine.read(available_bytes) * GIB > 1024


def test_a_budget_is_what_is_said_a_part_of_the_whole_or_most_of_what_is_free():
    assert budget_bytes(5, available=10, total=100) == 5
    assert budget_bytes(0.5, available=10, total=100) == 50
    assert budget_bytes(None, available=10, total=100) == 8


def test_this_machine_has_memory():
    assert 0 < available_bytes() <= total_bytes()
