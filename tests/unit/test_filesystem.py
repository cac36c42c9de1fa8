"""Which file system holds a path, told from the texts of mount tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessionstore.database.filesystem import is_network, kind_of


def line(point: str, kind: str, options: str = "rw", optional: str = "shared:1") -> str:
    """One line of mountinfo; `optional` may be any number of fields."""
    fields = " ".join(part for part in ("36 35 98:0 /", point, "rw,noatime", optional) if part)
    return f"{fields} - {kind} /dev/source {options}\n"


ROOT = line("/", "ext4")


@pytest.mark.fault("F16")
@pytest.mark.parametrize(
    "kind",
    ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "fuse", "fuse.sshfs", "fuse.s3fs", "afs", "ceph", "glusterfs",
     "lustre", "beegfs", "gpfs", "ncpfs", "vboxsf", "prl_fs"],
)  # fmt: skip
def test_network_file_systems_are_told(kind: str) -> None:
    found = kind_of(Path("/mnt/share/agent.db"), ROOT + line("/mnt/share", kind))
    assert found == kind
    assert is_network(found)
    assert not is_network(kind_of(Path("/home/agent.db"), ROOT + line("/mnt/share", kind)))


@pytest.mark.fault("F16")
@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "apfs", "overlay", "fuseblk", "f2fs", "nfsd", "9pfs-not", ""]
)
def test_local_file_systems_are_local(kind: str) -> None:
    assert not is_network(kind)


@pytest.mark.fault("F16")
def test_an_unknown_file_system_is_not_called_a_network() -> None:
    assert not is_network(None)
    assert kind_of(Path("/agent.db"), "") is None
    assert kind_of(Path("/agent.db"), line("/mnt", "nfs")) is None


@pytest.mark.fault("F16")
def test_the_longest_mount_point_decides() -> None:
    table = ROOT + line("/mnt", "nfs4") + line("/mnt/local", "xfs") + line("/mnt/local/deep", "cifs")
    assert kind_of(Path("/mnt/agent.db"), table) == "nfs4"
    assert kind_of(Path("/mnt/local/agent.db"), table) == "xfs"
    assert kind_of(Path("/mnt/local/deep/er/agent.db"), table) == "cifs"
    assert kind_of(Path("/agent.db"), table) == "ext4"


@pytest.mark.fault("F16")
def test_the_order_of_the_table_does_not_matter_for_the_longest() -> None:
    assert kind_of(Path("/mnt/local/agent.db"), line("/mnt/local", "xfs") + line("/mnt", "nfs4") + ROOT) == "xfs"


@pytest.mark.fault("F16")
def test_a_mount_point_is_whole_names_not_letters() -> None:
    table = ROOT + line("/mnt/share", "nfs4")
    assert kind_of(Path("/mnt/share2/agent.db"), table) == "ext4"
    assert kind_of(Path("/mnt/shar"), table) == "ext4"


@pytest.mark.fault("F16")
def test_a_file_may_be_mounted_itself() -> None:
    assert kind_of(Path("/data/agent.db"), ROOT + line("/data/agent.db", "virtiofs")) == "virtiofs"


@pytest.mark.fault("F16")
def test_a_later_mount_hides_the_earlier_one() -> None:
    assert kind_of(Path("/mnt/agent.db"), ROOT + line("/mnt", "ext4") + line("/mnt", "nfs")) == "nfs"
    assert kind_of(Path("/mnt/agent.db"), ROOT + line("/mnt", "nfs") + line("/mnt", "xfs")) == "xfs"


@pytest.mark.fault("F16")
def test_octal_escapes_are_undone() -> None:
    table = ROOT + line(r"/mnt/my\040share\011\134x", "cifs")
    assert kind_of(Path("/mnt/my share\t\\x/agent.db"), table) == "cifs"
    assert kind_of(Path(r"/mnt/my\040share\011\134x/agent.db"), table) == "ext4"


@pytest.mark.fault("F16")
def test_octal_escapes_of_other_letters_are_undone() -> None:
    """The kernel escapes space, tab, newline, backslash and the number sign; other letters stand as bytes of UTF-8."""
    assert kind_of(Path("/mnt/a#b/é/agent.db"), ROOT + line(r"/mnt/a\043b/é", "nfs")) == "nfs"


@pytest.mark.fault("F16")
@pytest.mark.parametrize("optional", ["", "shared:1", "shared:1 master:2", "shared:1 master:2 propagate_from:3 unbindable"])
def test_optional_fields_are_skipped(optional: str) -> None:
    assert kind_of(Path("/mnt/agent.db"), ROOT + line("/mnt", "nfs4", optional=optional)) == "nfs4"


@pytest.mark.fault("F16")
def test_an_overlay_is_as_safe_as_what_it_writes_to() -> None:
    over_nfs = ROOT + line("/mnt", "nfs4") + line("/merged", "overlay", "rw,lowerdir=/lower,upperdir=/mnt/up,workdir=/mnt/work")
    assert is_network(kind_of(Path("/merged/agent.db"), over_nfs))
    over_disk = ROOT + line("/merged", "overlay", "rw,lowerdir=/mnt/nfs,upperdir=/var/up,workdir=/var/work")
    assert kind_of(Path("/merged/agent.db"), over_disk) == "overlay"
    escaped = ROOT + line(r"/my\040mnt", "cifs") + line("/merged", "overlay", r"rw,upperdir=/my\040mnt/up")
    assert kind_of(Path("/merged/agent.db"), escaped) == "cifs"


@pytest.mark.fault("F16")
def test_an_overlay_that_does_not_say_what_it_writes_to_is_an_overlay() -> None:
    assert kind_of(Path("/merged/agent.db"), ROOT + line("/merged", "overlay", "ro,lowerdir=/lower")) == "overlay"
    assert kind_of(Path("/agent.db"), line("/", "overlay", "rw,lowerdir=/a,upperdir=/b")) == "overlay"


@pytest.mark.fault("F16")
@pytest.mark.parametrize(
    "broken", ["", "\n", "rubbish\n", "1 2 3 4 5\n", " - \n", "1 2 3 4 /mnt rw -\n", "36 35 98:0 / /mnt rw - \n", "-\n\n- -"]
)
def test_broken_lines_are_passed_over(broken: str) -> None:
    assert kind_of(Path("/mnt/agent.db"), broken + ROOT) == "ext4"
    assert kind_of(Path("/mnt/agent.db"), broken) is None


@pytest.mark.fault("F16")
def test_this_machine_can_be_asked(tmp_path: Path) -> None:
    found = kind_of(tmp_path / "agent.db")
    assert found is None or found
