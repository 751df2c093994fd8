#!/bin/sh
# A driver that is started each `every`: how full the disk is that holds a folder.
folder=${1:-/}
used=$(df -P "$folder" 2>&1 | awk 'NR == 2 { sub("%", "", $5); print $5 }')
case $used in
'' | *[!0-9]*) printf '{"fault":"df says nothing of %s"}\n' "$folder" ;;
*) printf '{"used":{"value":%s,"unit":"%%"}}\n' "$used" ;;
esac
