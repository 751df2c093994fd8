#!/bin/sh
# A driver that runs on, in nothing but shell: since when the machine is up. It ends when vigie has gone, because then
# nobody reads what it prints.
while read -r seconds _ < /proc/uptime; do
    printf '{"uptime":{"value":%s,"unit":"s"},"boottime":%s}\n' "$seconds" "$seconds" || exit
    sleep "${1:-10}"
done
