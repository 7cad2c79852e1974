#!/bin/sh
# Check and time this bundle's engines on this device; writes latency.json.
#   ./bench [--quick] [--output FILE]
# Precisions are timed one after another by trtexec; latency is host to host, copies included.
set -eu
cd "$(dirname "$0")"
output=latency.json
warm=2000 seconds=10 rounds=1024 quick=false
while [ $# -gt 0 ]; do
    case "$1" in
        --quick) warm=500 seconds=3 rounds=200 quick=true ;;
        --output) output="$2"; shift ;;
        --threads) shift ;;
        *) echo "bench: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
./build.sh
TRTEXEC="$(cat .trtexec)" VERSION="$(cat .version)"

# Numbers below "values" of the first output tensor, one per line.
values() {
    tr ',[]{}' '\n\n\n\n\n' < "$1" | awk '/"values"/ {on = 1; sub(/.*:/, "")} on && /^[ ]*-?[0-9.eE+-]+[ ]*$/ {print $1}'
}

escape() { tr -d '\000\n' | sed 's/[\\"]/ /g'; }

power="$(nvpmodel -q 2>/dev/null | escape || true)"
clocks="$(jetson_clocks --show 2>/dev/null | head -c 2000 | escape || true)"
board="$(cat /proc/device-tree/model 2>/dev/null | escape || true)"
checks="" samples="" passed=0
while read -r precision file tolerance input; do
    [ -e "model.$precision.plan" ] || continue
    worst=0 same=0 count=0
    for example in input_*.bin; do
        index="${example#input_}" index="${index%.bin}"
        "$TRTEXEC" --loadEngine="model.$precision.plan" --loadInputs="$input:$example" \
            --exportOutput=answer.json --iterations=1 --warmUp=0 --duration=0 < /dev/null > /dev/null 2>&1
        values answer.json > answer.txt
        result="$(paste answer.txt "expected_$index.$precision.txt" | awk '
            {d = $1 - $2; if (d < 0) d = -d; m = $2 < 0 ? -$2 : $2
             if (d > e) e = d; if (m > s) s = m
             if (NR == 1 || $1 > a) {a = $1; i = NR}
             if (NR == 1 || $2 > b) {b = $2; j = NR}}
            END {if (s == 0) s = 1; printf "%.6g %d", e / s, i == j}')"
        error="${result% *}"
        worst="$(awk -v a="$worst" -v b="$error" 'BEGIN {print (b > a) ? b : a}')"
        same=$((same + ${result#* })) count=$((count + 1))
    done
    ok="$(awk -v e="$worst" -v t="$tolerance" 'BEGIN {print (e <= t) ? "true" : "false"}')"
    [ "$ok" = true ] || passed=1
    share="$(awk -v s="$same" -v c="$count" 'BEGIN {printf "%.4g", c ? s / c : 0}')"
    checks="$checks${checks:+, }\"$precision\": {\"relative_error\": $worst, \"same_class\": $share, \"passed\": $ok}"
    "$TRTEXEC" --loadEngine="model.$precision.plan" --warmUp="$warm" --duration="$seconds" \
        --iterations="$rounds" --useSpinWait --percentile=50,90,99 --exportTimes=times.json < /dev/null > "bench.$precision.log" 2>&1
    list="$(tr ',{}' '\n\n\n' < times.json | awk -F: '/"latencyMs"/ {printf "%s%d", (n++ ? "," : ""), $2 * 1e6}')"
    samples="$samples${samples:+, }\"$precision\": [$list]"
    echo "$precision: see bench.$precision.log" >&2
done < variants.txt

cat > "$output.tmp" <<END
{"schema": 1, "kind": "measured", "target": "$(sed -n 's/.*"target": "\([^"]*\)".*/\1/p' manifest.json | head -n 1)",
 "student": "$(sed -n 's/.*"student": "\([^"]*\)".*/\1/p' manifest.json | head -n 1)",
 "quick": $quick, "batch": 1, "timed": "trtexec latency, host to host, copies included",
 "warm_up_seconds": $(awk -v w="$warm" 'BEGIN {print w / 1000}'), "seconds": $seconds,
 "environment": {"machine": "$(uname -m)", "system": "$(uname -sr)", "board": "$board", "threads": 1,
  "runtime": "TensorRT $VERSION", "provider": "trtexec", "power_mode": "$power", "clocks": "$clocks"},
 "checks": {$checks}, "samples_ns": {$samples}}
END
mv "$output.tmp" "$output"
exit "$passed"
