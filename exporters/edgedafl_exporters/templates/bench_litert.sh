#!/bin/sh
# Check and time this bundle's models on a phone without Python, by LiteRT's own benchmark_model; writes latency.json.
#   sh ./bench.sh [--quick] [--threads N] [--cpus LIST] [--output FILE]
# BENCHMARK_MODEL names the program; else it is looked for in /data/local/tmp and on the path. It tells the mean of its
# calls alone: one sample is a mean of 16 calls in a process of its own, and precisions take turns.
# What was measured so far is in latency.partial.json while a run goes on.
set -eu
cd "$(dirname "$0")"
output=latency.json calls=16 rounds=64 quick=false cpus="" threads=1
while [ $# -gt 0 ]; do
    case "$1" in
        --quick) rounds=16 quick=true ;;
        --threads) threads="$2"; shift ;;
        --cpus) cpus="$2"; shift ;;
        --output) output="$2"; shift ;;
        --processes) shift ;; # every sample has a process of its own
        --mlperf | --layers) echo "bench: $1 needs Python on the device; benchmark_model tells means alone" >&2; exit 2 ;;
        *) echo "bench: unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
[ -f variants.txt ] || { echo "The models of this bundle are measured with Python only." >&2; exit 3; }
runner=""
for place in "${BENCHMARK_MODEL:-}" /data/local/tmp/benchmark_model "$(command -v benchmark_model 2>/dev/null || true)"; do
    if [ -n "$place" ] && [ -x "$place" ]; then runner="$place"; break; fi
done
if [ -z "$runner" ]; then
    echo "There is neither Python nor benchmark_model here: get LiteRT's benchmark_model for this processor, then" \
        "adb push benchmark_model /data/local/tmp and adb shell chmod +x /data/local/tmp/benchmark_model." >&2
    exit 3
fi
pinned=""
if [ -n "$cpus" ]; then pinned="taskset -c $cpus"; fi

# Lines of name<TAB>value as the inside of a JSON object.
object() {
    tr -d '\000-\010\013-\037' | awk -F '\t' 'NF > 1 {
        gsub(/[\\"]/, " ", $2); printf "%s\"%s\": \"%s\"", (n++ ? ", " : ""), $1, $2}'
}
facts() { sh ./facts.sh true 2>/dev/null; }
look() { facts | grep -E '^(temperature|clock|thermal_status)' | object; }

# run FILE ARGUMENTS...: benchmark_model on one model, what it prints in bench.log.
run() {
    file="$1"; shift
    $pinned "$runner" --graph="$file" --num_threads="$threads" --min_secs=0 --max_secs=120 "$@" \
        < /dev/null > bench.log 2>&1 || { tail -n 3 bench.log >&2; echo "benchmark_model failed on $file" >&2; exit 4; }
}

# Scores of an answer file, one per line: TYPE SCALE ZERO.
scores() {
    case "$1" in float32) form=f4 ;; uint8) form=u1 ;; *) form=d1 ;; esac
    od -An -v -t "$form" answer.bin | tr -s ' ' '\n' | awk -v s="$2" -v z="$3" 'NF {print s == 0 ? $1 : ($1 - z) * s}'
}

facts > facts.txt
before="$(look)"
checks="" failed=0
while read -r precision file tolerance name shape given made scale zero; do
    worst=0 same=0 count=0
    for expected in expected_*."$precision".txt; do
        index="${expected#expected_}" index="${index%%.*}"
        rm -f answer.bin
        run "$file" --warmup_runs=1 --warmup_min_secs=0 --num_runs=1 --input_layer="$name" --input_layer_shape="$shape" \
            --input_layer_value_files="$name:input_$index.$given.bin" --output_filepath=answer.bin
        [ -s answer.bin ] || break
        result="$(scores "$made" "$scale" "$zero" | paste - "$expected" | awk '
            {d = $1 - $2; if (d < 0) d = -d; m = $2 < 0 ? -$2 : $2
             if (d > e) e = d; if (m > s) s = m
             if (NR == 1 || $1 > a) {a = $1; i = NR}
             if (NR == 1 || $2 > b) {b = $2; j = NR}}
            END {if (s == 0) s = 1; printf "%.6g %d", e / s, i == j}')"
        worst="$(awk -v a="$worst" -v b="${result% *}" 'BEGIN {print (b > a) ? b : a}')"
        same=$((same + ${result#* })) count=$((count + 1))
    done
    if [ "$count" = 0 ]; then
        echo "This benchmark_model does not write its answers (--output_filepath): they were not checked." >&2
        break
    fi
    ok="$(awk -v e="$worst" -v t="$tolerance" 'BEGIN {print (e <= t) ? "true" : "false"}')"
    [ "$ok" = true ] || failed=1
    share="$(awk -v s="$same" -v c="$count" 'BEGIN {printf "%.4g", s / c}')"
    checks="$checks${checks:+, }\"$precision\": {\"relative_error\": $worst, \"same_class\": $share, \"passed\": $ok}"
done < variants.txt

# write FILE: everything known so far.
write() {
    samples=""
    while read -r precision rest; do
        [ -f "samples.$precision.txt" ] || continue
        samples="$samples${samples:+, }\"$precision\": [$(paste -s -d, "samples.$precision.txt")]"
    done < variants.txt
    kind=measured dots=null
    if grep -q '^emulated' facts.txt; then kind=emulated; fi
    if grep -q '^cpu_features' facts.txt; then dots=false; fi
    if grep -q '^cpu_features.* asimddp' facts.txt; then dots=true; fi
    cat > "$1.tmp" <<END
{"schema": 1, "kind": "$kind", "target": "$(sed -n 's/.*"target": "\([^"]*\)".*/\1/p' manifest.json | head -n 1)",
 "student": "$(sed -n 's/.*"student": "\([^"]*\)".*/\1/p' manifest.json | head -n 1)",
 "quick": $quick, "batch": 1, "timed": "mean of $calls calls of benchmark_model", "calls_per_sample": $calls,
 "warm_up_seconds": 0.1, "processes": $rounds,
 "environment": {"machine": "$(uname -m)", "system": "$(uname -sr)", "threads": $threads, "affinity": "$cpus",
  "runtime": "LiteRT", "provider": "benchmark_model", "dot_products": $dots, "facts": {$(object < facts.txt)},
  "before": {$before}, "after": {$(look)}},
 "checks": {$checks}, "samples_ns": {$samples}}
END
    mv "$1.tmp" "$1"
}

rm -f samples.*.txt
round=0
while [ "$round" -lt "$rounds" ]; do
    while read -r precision file rest; do
        run "$file" --warmup_runs=2 --warmup_min_secs=0.1 --num_runs="$calls"
        # Its last line of counts: of one call `curr`, of several `avg`, in microseconds.
        sed -n 's/.*count=[0-9]* .*avg=\([0-9.e+-]*\).*/\1/p' bench.log | tail -n 1 |
            awk '{printf "%.0f\n", $1 * 1000}' >> "samples.$precision.txt"
    done < variants.txt
    round=$((round + 1))
    if [ $((round % 16)) = 0 ]; then
        echo "$round of $rounds rounds" >&2
        write latency.partial.json
    fi
done
for file in samples.*.txt; do
    [ -s "$file" ] || { echo "benchmark_model printed no times, see bench.log" >&2; exit 4; }
done
write "$output"
exit "$failed"
