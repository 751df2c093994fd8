# What the scripts share that run inside of the container. They have set $unit; the last line that they say is
# `echo "$passed passed, $failed failed"`.
# shellcheck shell=bash disable=SC2154,SC2034

# Seconds until a condition must hold: a busy host holds everything up for tens of them now and then.
DEADLINE=120

passed=0
failed=0

# check NAME COMMAND...: the command's output is shown where it fails.
check() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        echo "ok - $name"
        passed=$((passed + 1))
    else
        echo "FAILED - $name"
        echo "    $*: ${output//$'\n'/$'\n'    }"
        failed=$((failed + 1))
    fi
}

# within COMMAND...: the command succeeds within the deadline.
within() {
    local end=$((SECONDS + DEADLINE)) output
    until output=$("$@" 2>&1); do
        if ((SECONDS >= end)); then
            echo "not within $DEADLINE s: $* : $output"
            systemctl --no-pager --full status "$unit"
            return 1
        fi
        sleep 0.1
    done
}

property() { systemctl show --property="$1" --value "$unit"; }
# is PROPERTY VALUE
is() {
    local value
    value=$(property "$1")
    [[ $value == "$2" ]] || { echo "$1 is \`$value\`, not \`$2\`"; return 1; }
}
