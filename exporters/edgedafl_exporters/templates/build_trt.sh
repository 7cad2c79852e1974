#!/bin/sh
# Build a TensorRT engine for every model of this bundle, on this device.
# Works with trtexec 10.3 to 11.4: precision is in the graphs, no precision flag is used.
set -eu
cd "$(dirname "$0")"

TRTEXEC="${TRTEXEC:-}"
for place in "$(command -v trtexec || true)" /usr/src/tensorrt/bin/trtexec; do
    if [ -z "$TRTEXEC" ] && [ -n "$place" ] && [ -x "$place" ]; then TRTEXEC="$place"; fi
done
if [ -z "$TRTEXEC" ]; then
    echo "build.sh: trtexec was not found; install TensorRT, or set TRTEXEC=/path/to/trtexec" >&2
    exit 3
fi

# trtexec prints e.g. "[TensorRT v100300]" or "[TensorRT v110400]": major * 10000 + minor * 100.
VERSION="$("$TRTEXEC" --help 2>&1 | sed -n 's/.*TensorRT v\([0-9]*\).*/\1/p' | head -n 1)"
VERSION="${VERSION:-0}"
if [ "$VERSION" -lt 100300 ]; then
    echo "build.sh: found TensorRT v$VERSION; this bundle needs 10.3 or newer" >&2
    exit 3
fi
TYPED=""
if [ "$VERSION" -lt 110000 ]; then TYPED="--stronglyTyped"; fi

# An engine is valid for one device, release and power mode.
PLACE="$( { cat /proc/device-tree/model /etc/nv_tegra_release 2>/dev/null; nvpmodel -q 2>/dev/null; uname -m; } | tr -d '\000' | cksum | cut -d' ' -f1)"

while read -r precision file tolerance input; do
    key="$(cksum < "$file" | cut -d' ' -f1)-$VERSION-$PLACE"
    engine="model.$precision.$key.plan"
    if [ ! -f "$engine" ]; then
        echo "build.sh: building $precision" >&2
        "$TRTEXEC" --onnx="$file" --saveEngine="$engine.tmp" --timingCacheFile=timing.cache \
            --builderOptimizationLevel=3 --skipInference $TYPED < /dev/null > "build.$precision.log" 2>&1 || {
            echo "build.sh: building $precision failed; see build.$precision.log" >&2
            rm -f "$engine.tmp"
            continue
        }
        mv "$engine.tmp" "$engine"
    fi
    ln -sf "$engine" "model.$precision.plan"
done < variants.txt

if ! ls model.*.plan > /dev/null 2>&1; then
    echo "build.sh: no engine could be built" >&2
    exit 5
fi
printf '%s\n' "$TRTEXEC" > .trtexec
printf '%s\n' "$VERSION" > .version
