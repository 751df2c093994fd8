# A container that boots a real systemd, for the scripts that source this: `tests/systemd/run`, `tests/guides/run`.
# They have set $target, the target folder, and $NAME, by which they call themselves; they run as root, in a namespace of
# mounts of their own, which ends with them.
# shellcheck shell=bash disable=SC2154  # what they have set
#
# The container's root is made once, of this machine's own Debian release, and kept below the target folder. A run
# works on a copy in memory: nothing of it stays but its log.

NEEDS="mmdebstrap systemd-container lintian binutils xz-utils dpkg-dev gpg gpg-agent python3"
# What the scripts need in the container.
INSIDE="adduser,dbus,iproute2,libgcc-s1,mosquitto,mosquitto-clients,openssh-client,procps,python3,strace,sudo,systemd-sysv"
# The package, which is newer than any that it replaces and older than every release.
# shellcheck disable=SC2034  # theirs
VERSION=0.1.0~test2

cache=$target/tests/systemd
root=/run/test/root
mkdir -p "$cache"

fail() {
    echo "$NAME: $*" >&2
    exit 1
}

# Runs a command whose output is of interest only if it fails.
quietly() {
    "$@" >"$cache/setup.log" 2>&1 9>&- || {
        cat "$cache/setup.log" >&2
        fail "this failed, with the output above: $*"
    }
}

# Other archives (`apt` calls them by their origin) may have a release of the same name.
release() {
    # shellcheck disable=SC2016  # the variables are apt's
    apt-get indextargets --format '$(ORIGIN) $(RELEASE) deb $(REPO_URI) $(RELEASE) $(COMPONENT)' "Created-By: Packages" |
        awk -v id="$1" -v codename="$2" \
            'tolower($1) == id && $2 == codename { print $3, $4, $5, $6 }' | sort -u
}

# Makes the root, and a copy in memory of it at $root. One run at a time.
make_root() {
    exec 9>"$cache/lock"
    flock 9
    local missing=() package distribution codename sources made_of
    for package in $NEEDS; do
        [[ $(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>&1) == installed ]] || missing+=("$package")
    done
    if ((${#missing[@]})); then
        echo "installing ${missing[*]}"
        quietly apt-get update
        quietly env DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends "${missing[@]}"
    fi
    # Of the release that the binary was built on, from where this machine takes its packages.
    distribution=$(sed -n 's/^ID=//p' /etc/os-release)
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    sources=$(release "$distribution" "$codename")
    if [[ -z $sources ]]; then
        quietly apt-get update
        sources=$(release "$distribution" "$codename")
    fi
    [[ -n $sources ]] || fail "apt knows no packages of the release \`$codename\` of \`$distribution\`"
    made_of="$INSIDE $sources"
    if [[ $(cat "$cache/root.made-of" 2>&1) != "$made_of" ]]; then
        echo "making the container's root ($codename)"
        rm -rf "$cache/root" "$cache/root.made-of"
        quietly mmdebstrap --mode=root --variant=minbase --include="$INSIDE" "$codename" "$cache/root" - <<<"$sources"
        # Debian's mosquitto starts a service on a port that the checks want for themselves.
        quietly systemctl --root="$cache/root" disable mosquitto.service
        echo "$made_of" >"$cache/root.made-of"
    fi
    # A stopped container leaves nothing in /run of this machine, and where this machine runs systemd, it is not asked.
    mount -t tmpfs tmpfs /run
    mkdir -p /run/test/{upper,work,root}
    mount -t overlay overlay -o "lowerdir=$cache/root,upperdir=/run/test/upper,workdir=/run/test/work" $root
}

# run_in_it PROGRAM LOG LIMIT [OPTION...]: boots the container, runs PROGRAM in it as root, shows what it says, and
# powers off. The folder LOG has that (`checks`), the journal and the console. LIMIT: seconds, boot included.
run_in_it() {
    local program=$1 log=$2 limit=$3 container status=0
    shift 3
    cat >"$root/etc/systemd/system/checks.service" <<UNIT
[Unit]
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=$program
ExecStopPost=/bin/sh -c 'journalctl --no-pager --output=short-precise >/log/journal'
StandardOutput=file:/log/checks
StandardError=inherit
[Install]
WantedBy=default.target
UNIT
    systemctl --quiet --root="$root" enable checks.service
    rm -rf "$log"
    mkdir "$log"
    touch "$log/checks"
    # As on a machine, the sandbox may ask for the clock's state (@clock); without CAP_SYS_TIME nobody can set it.
    timeout --kill-after=20 "$limit" systemd-nspawn --boot --directory="$root" --machine=vigie-test --bind="$log:/log" \
        --register=no --keep-unit --private-network --resolv-conf=off --timezone=off --link-journal=no \
        --system-call-filter=@clock --console=read-only "$@" </dev/null >"$log/console" 2>&1 9>&- &
    container=$!
    # shellcheck disable=SC2064  # of this container
    trap "kill $container 2>/dev/null || true" EXIT
    # Shows what the checks say while they run.
    tail --quiet --lines=+1 --follow --sleep-interval=0.2 --pid=$container "$log/checks"
    wait $container || status=$?
    trap - EXIT
    if ! tail -n 1 "$log/checks" | grep -Eq '^[1-9][0-9]* passed, 0 failed$'; then
        echo "--- the container's console"
        cat "$log/console"
        echo "--- the container's journal"
        cat "$log/journal" || echo "there is none: the checks were not started"
        fail "failed (systemd-nspawn ended with status $status); the logs are in $log"
    fi
}
