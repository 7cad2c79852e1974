#!/bin/sh
# Check and time this bundle's engines on this device; writes latency.json.
#   ./bench [--quick | --mlperf] [--layers] [--processes N] [--cpus LIST] [--output FILE]
# Precisions take turns, one trtexec process after the other; latency is host to host, copies
# included. What was measured so far is in latency.partial.json while a run goes on.
set -eu
cd "$(dirname "$0")"
output=latency.json
warm=2000 seconds=10 rounds=1024 processes=3 quick=false mlperf=false layers=false cpus=""
while [ $# -gt 0 ]; do
    case "$1" in
        --quick) warm=500 seconds=3 rounds=200 processes=1 quick=true ;;
        --mlperf) seconds=600 processes=1 mlperf=true ;;
        --layers) layers=true ;;
        --processes) processes="$2"; shift ;;
        --cpus) cpus="$2"; shift ;;
        --output) output="$2"; shift ;;
        --threads) shift ;;
        *) echo "bench: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
sh ./build.sh
TRTEXEC="$(cat .trtexec)" VERSION="$(cat .version)"
share_seconds=$(((seconds + processes - 1) / processes)) share_rounds=$(((rounds + processes - 1) / processes))
pinned=""
if [ -n "$cpus" ]; then pinned="taskset -c $cpus"; fi

# Numbers below "values" of the first output tensor, one per line.
values() {
    tr ',[]{}' '\n\n\n\n\n' < "$1" | awk '/"values"/ {on = 1; sub(/.*:/, "")} on && /^[ ]*-?[0-9.eE+-]+[ ]*$/ {print $1}'
}

# Lines of name<TAB>value as the inside of a JSON object.
object() {
    tr -d '\000-\010\013-\037' | awk -F '\t' 'NF > 1 {
        gsub(/[\\"]/, " ", $2); printf "%s\"%s\": \"%s\"", (n++ ? ", " : ""), $1, $2}'
}

facts() { sh ./facts.sh true 2>/dev/null; }
# Heat, clocks and power now, without asking for versions.
look() { facts | grep -E '^(temperature|clock|power_mw)\.' | object; }

facts > facts.txt
before="$(look)"
checks="" failed=0
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
    [ "$ok" = true ] || failed=1
    share="$(awk -v s="$same" -v c="$count" 'BEGIN {printf "%.4g", c ? s / c : 0}')"
    checks="$checks${checks:+, }\"$precision\": {\"relative_error\": $worst, \"same_class\": $share, \"passed\": $ok}"
done < variants.txt

# write FILE: everything known so far.
write() {
    samples="" lengths="" median=""
    while read -r precision file tolerance input; do
        [ -f "samples.$precision.txt" ] || continue
        samples="$samples${samples:+, }\"$precision\": [$(paste -s -d, "samples.$precision.txt")]"
        lengths="$lengths${lengths:+, }\"$precision\": [$(paste -s -d, "lengths.$precision.txt")]"
    done < variants.txt
    kind=measured
    if grep -q '^emulated' facts.txt; then kind=emulated; fi
    cat > "$1.tmp" <<END
{"schema": 1, "kind": "$kind", "target": "$(sed -n 's/.*"target": "\([^"]*\)".*/\1/p' manifest.json | head -n 1)",
 "student": "$(sed -n 's/.*"student": "\([^"]*\)".*/\1/p' manifest.json | head -n 1)",
 "quick": $quick, "mlperf": $mlperf, "batch": 1, "timed": "trtexec latency, host to host, copies included",
 "warm_up_seconds": $(awk -v w="$warm" -v n="$processes" 'BEGIN {print w * n / 1000}'), "seconds": $seconds,
 "processes": $done, "process_samples": {$lengths},
 "environment": {"machine": "$(uname -m)", "system": "$(uname -sr)", "threads": 1, "affinity": "$cpus",
  "runtime": "TensorRT $VERSION", "provider": "trtexec", "facts": {$(object < facts.txt)},
  "before": {$before}, "after": {$(look)}},
 "checks": {$checks}, "layers": {$profiles}, "samples_ns": {$samples}}
END
    mv "$1.tmp" "$1"
}

rm -f samples.*.txt lengths.*.txt
done=0 profiles=""
while [ "$done" -lt "$processes" ]; do
    while read -r precision file tolerance input; do
        [ -e "model.$precision.plan" ] || continue
        $pinned "$TRTEXEC" --loadEngine="model.$precision.plan" --warmUp="$warm" --duration="$share_seconds" \
            --iterations="$share_rounds" --useSpinWait --percentile=50,90,99 --exportTimes=times.json \
            < /dev/null > "bench.$precision.log" 2>&1
        tr ',{}' '\n\n\n' < times.json | awk -F: '/"latencyMs"/ {printf "%.0f\n", $2 * 1e6}' > part.txt
        wc -l < part.txt | tr -d ' ' >> "lengths.$precision.txt"
        cat part.txt >> "samples.$precision.txt"
        echo "$precision: process $((done + 1)) of $processes, see bench.$precision.log" >&2
    done < variants.txt
    done=$((done + 1))
    write latency.partial.json
done

if [ "$layers" = true ]; then
    while read -r precision file tolerance input; do
        [ -e "model.$precision.plan" ] || continue
        "$TRTEXEC" --loadEngine="model.$precision.plan" --separateProfileRun --dumpProfile \
            --exportProfile=profile.json --warmUp=500 --duration=2 < /dev/null > "layers.$precision.log" 2>&1
        rows="$(tr '{}' '\n\n' < profile.json | awk '
            /"name"/ && /"medianMs"|"averageMs"/ {
                name = $0; sub(/.*"name"[ ]*:[ ]*"/, "", name); sub(/".*/, "", name); gsub(/\\/, " ", name)
                time = $0; if (!sub(/.*"medianMs"[ ]*:[ ]*/, "", time)) sub(/.*"averageMs"[ ]*:[ ]*/, "", time)
                sub(/[^0-9.eE+-].*/, "", time)
                printf "%s{\"node\": \"%s\", \"operator\": \"\", \"ns\": %.0f}", (n++ ? ", " : ""), name, time * 1e6}')"
        profiles="$profiles${profiles:+, }\"$precision\": [$rows]"
    done < variants.txt
fi
write "$output"
exit "$failed"
