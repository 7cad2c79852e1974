#!/bin/sh
# An arm64 system of about 200 MB that qemu's user emulation runs: a shell, Python, ONNX Runtime.
#   arm_root.sh FOLDER      makes FOLDER/root, FOLDER/root/opt/site (numpy, onnxruntime)
# Needs apt-get, dpkg, pip and Debian's arm64 archive; to be changed into (chroot), root rights and
# qemu registered for arm64 programs as well, see devices.py beside this file.
set -eu
place="$1"
runtime="${ONNXRUNTIME:-1.31.1}" arrays="${NUMPY:-2.4.6}"
root="$place/root"
mkdir -p "$place/lists/partial" "$place/archives/partial" "$place/wheels" "$root/opt/site"
: > "$place/status"

apt() {
    apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root \
        -o Dir::State::Lists="$place/lists" -o Dir::State::status="$place/status" \
        -o Dir::Cache="$place/archives" -o Debug::NoLocking=1 "$@"
}
apt update
(cd "$place/archives" && apt download libc6 libgcc-s1 libstdc++6 dash coreutils libselinux1 libacl1 libattr1 \
    libpcre2-8-0 libgmp10 grep sed mawk python3.11-minimal libpython3.11-minimal libpython3.11-stdlib zlib1g libexpat1 \
    libssl3 libffi8 liblzma5 libbz2-1.0 libuuid1 libsqlite3-0)
for package in "$place"/archives/*.deb; do dpkg -x "$package" "$root"; done
ln -sf dash "$root/bin/sh"
ln -sf dash "$root/bin/bash"
ln -sf mawk "$root/usr/bin/awk"
ln -sf python3.11 "$root/usr/bin/python3"

python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --implementation cp \
    --abi cp311 --abi abi3 --abi none --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 --platform any \
    --dest "$place/wheels" "onnxruntime==$runtime" "numpy==$arrays" flatbuffers packaging protobuf
for wheel in "$place"/wheels/*.whl; do python3 -m zipfile -e "$wheel" "$root/opt/site"; done

# What programs read of the processor: a Raspberry Pi 5's instead of the host's.
mkdir -p "$root/proc" "$root/sys/devices/system/cpu" "$root/dev" "$root/tmp" "$root/root"
for name in possible present online; do echo 0-1 > "$root/sys/devices/system/cpu/$name"; done
: > "$root/proc/cpuinfo"
for core in 0 1; do
    cat >> "$root/proc/cpuinfo" <<END
processor	: $core
BogoMIPS	: 108.00
Features	: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x4
CPU part	: 0xd0b
CPU revision	: 1

END
done
[ -e "$root/dev/null" ] || mknod -m 666 "$root/dev/null" c 1 3
rm -rf "$place/archives" "$place/lists" "$place/wheels" "$place/status"
