#!/bin/sh
# What this device is and in what state: one "name<TAB>value" per line, nothing is changed.
#   facts.sh [PYTHON]
# SYSROOT puts a folder before every path, to look at a recorded device.
root="${SYSROOT:-}"
python="${1:-python3}"

say() { if [ -n "$2" ]; then printf '%s\t%s\n' "$1" "$2"; fi; }
first() { if [ -r "$1" ]; then head -n 1 "$1" 2>/dev/null | tr -d '\000' | tr '\t' ' '; fi; }
has() { command -v "$1" > /dev/null 2>&1; }
field() { sed -n "s/^$1[[:space:]]*:[[:space:]]*//p" "$root/proc/cpuinfo" 2>/dev/null | sort -u | tr '\n' ' ' | sed 's/ $//'; }

say machine "$(uname -m)"
say system "$(uname -sr)"
say release "$(sed -n 's/^PRETTY_NAME="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$root/etc/os-release" 2>/dev/null)"
say board "$(first "$root/proc/device-tree/model")"
say l4t "$(first "$root/etc/nv_tegra_release")"
if has getprop; then
    say board "$(getprop ro.product.manufacturer) $(getprop ro.product.model)"
    say release "Android $(getprop ro.build.version.release)"
    say chip "$(getprop ro.soc.model)"
fi

# The processor: names of its cores, and the instructions that integers need.
say cpu "$(field 'model name')"
say cpu_parts "$(field 'CPU part')"
say cpu_features "$(field Features)$(field flags)"
cores="$(grep -c '^processor' "$root/proc/cpuinfo" 2>/dev/null)"
say cores "${cores:-}"
for policy in "$root"/sys/devices/system/cpu/cpufreq/policy*; do
    [ -d "$policy" ] || continue
    say "clock.$(basename "$policy")" \
        "$(first "$policy/scaling_cur_freq") of $(first "$policy/cpuinfo_max_freq") kHz, $(first "$policy/scaling_governor"), cores $(first "$policy/related_cpus")"
done
say memory_kb "$(sed -n 's/^MemTotal:[[:space:]]*\([0-9]*\).*/\1/p' "$root/proc/meminfo" 2>/dev/null)"
say load "$(cut -d' ' -f1 "$root/proc/loadavg" 2>/dev/null)"
scratch="${SCRATCH:-${TMPDIR:-/tmp}}"
say scratch "$scratch"
say free_kb "$(df -k "$scratch" 2>/dev/null | awk 'NR == 2 {print $4}')"

# State that changes what a measurement means.
for zone in "$root"/sys/class/thermal/thermal_zone*; do
    [ -r "$zone/temp" ] || continue
    say "temperature.$(first "$zone/type")" "$(first "$zone/temp")"
    for trip in "$zone"/trip_point_*_type; do
        if [ "$(first "$trip")" = passive ]; then say "throttles_at.$(first "$zone/type")" "$(first "${trip%_type}_temp")"; fi
    done
done
# Power monitors (INA3221 on Jetsons): millivolts and milliamperes per rail.
for monitor in "$root"/sys/class/hwmon/hwmon*; do
    [ "$(first "$monitor/name")" = ina3221 ] || continue
    for label in "$monitor"/in*_label; do
        number="$(basename "$label" | sed 's/in\([0-9]*\)_label/\1/')"
        volts="$(first "$monitor/in${number}_input")" amperes="$(first "$monitor/curr${number}_input")"
        if [ -n "$volts" ] && [ -n "$amperes" ]; then say "power_mw.$(first "$label")" "$((volts * amperes / 1000))"; fi
    done
done
if has nvpmodel; then say power_mode "$(nvpmodel -q 2>/dev/null | tr '\n' ' ' | sed 's/ *$//')"; fi
if has jetson_clocks; then say jetson_clocks "$(jetson_clocks --show 2>/dev/null | head -c 1500 | tr '\n\t' ';  ')"; fi
if has vcgencmd; then say throttled "$(vcgencmd get_throttled 2>/dev/null | sed 's/^throttled=//')"; fi
if has dumpsys; then say thermal_status "$(dumpsys thermalservice 2>/dev/null | sed -n 's/^Thermal Status: //p')"; fi

# What can run a bundle.
if has "${python%% *}"; then
    # Libraries leave files in temporary and cache folders.
    own="$(mktemp -d "$scratch/edgedafl.XXXXXX" 2>/dev/null)"
    TMPDIR="${own:-$scratch}" XDG_CACHE_HOME="${own:-$scratch}" $python - <<'END'
import platform
print("python\t" + platform.python_version())
for name in ("numpy", "onnxruntime", "ai_edge_litert"):
    try:
        print(name + "\t" + __import__(name).__version__)
    except Exception as error:
        print("missing." + name + "\t" + str(error).split("\n")[0])
END
    if [ -n "$own" ]; then rm -rf "$own"; fi
fi
for place in "${TRTEXEC:-}" "$(command -v trtexec 2>/dev/null)" /usr/src/tensorrt/bin/trtexec; do
    if [ -n "$place" ] && [ -x "$place" ]; then
        say trtexec "$place"
        say tensorrt "$("$place" --help 2>&1 | sed -n 's/.*TensorRT v\([0-9]*\).*/\1/p' | head -n 1)"
        break
    fi
done
for place in "${BENCHMARK_MODEL:-}" "$root/data/local/tmp/benchmark_model" "$(command -v benchmark_model 2>/dev/null)"; do
    if [ -n "$place" ] && [ -x "$place" ]; then
        say benchmark_model "$place"
        break
    fi
done
if [ -n "${QEMU_CPU:-}${QEMU_LD_PREFIX:-}" ]; then say emulated "qemu ${QEMU_CPU:-}"; fi
exit 0
