# Sourced by scripts that take parts of their own from Debian's packages, without touching this machine's: its package
# sources stay as they are, and nothing is installed. The script sets `scratch`, a folder of its own.
# shellcheck shell=bash

fail() {
    echo "$0: $*" >&2
    exit 1
}

# Runs a step whose output is of interest only if it fails.
quietly() {
    "$@" >"$scratch/log" 2>&1 </dev/null || {
        cat "$scratch/log" >&2
        fail "this failed, with the output above: $*"
    }
}

# private_apt ARCHITECTURE… -- SUITE…: makes apt look at these suites only, and at nothing that is installed. The mirror
# is the one that this machine takes its own release from.
private_apt() {
    local architectures=() codename mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg suite
    while [[ $1 != -- ]]; do
        architectures+=("$1")
        shift
    done
    shift
    grep -qx 'ID=debian' /etc/os-release || fail "this knows Debian's packages only"
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    # shellcheck disable=SC2016  # the variables are apt's
    mirror=$(apt-get indextargets --format '$(ORIGIN) $(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk -v codename="$codename" 'tolower($1) == "debian" && $2 == codename { print $3; exit }')
    [[ -n $mirror ]] || fail "apt knows no packages of Debian $codename: run \`apt-get update\`, then this again"
    [[ -e $keyring ]] || fail "there is no $keyring: install debian-archive-keyring"
    mkdir -p "$scratch/apt"/{lists,archives}/partial
    for suite in "$@"; do
        echo "deb [signed-by=$keyring arch=$(IFS=, && echo "${architectures[*]}")] $mirror $suite main"
    done >"$scratch/apt/sources"
    : >"$scratch/apt/status"
    {
        printf 'Dir::Etc::sourcelist "%s";\nDir::Etc::sourceparts "-";\n' "$scratch/apt/sources"
        printf 'Dir::State "%s";\nDir::State::lists "lists";\n' "$scratch/apt"
        printf 'Dir::State::status "%s";\n' "$scratch/apt/status"
        printf 'Dir::Cache "%s";\nDir::Cache::archives "archives";\n' "$scratch/apt"
        printf 'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
        printf 'APT::Architectures { %s };\n' "$(printf '"%s"; ' "${architectures[@]}")"
        printf 'APT::Sandbox::User "root";\nAcquire::Languages "none";\nAcquire::Retries "3";\n'
    } >"$scratch/apt/apt.conf"
    export APT_CONFIG=$scratch/apt/apt.conf
    quietly apt-get update
}

# unpack FOLDER PACKAGE…: fetches these packages and unpacks them into that folder.
unpack() {
    local folder=$1
    shift
    mkdir -p "$folder" "$scratch/packages"
    (cd "$scratch/packages" && quietly apt-get download "$@")
    unpack_fetched "$folder" "$scratch/packages"
}

# unpack_with_libraries FOLDER PACKAGE…: the same with everything that they depend on.
unpack_with_libraries() {
    local folder=$1
    shift
    mkdir -p "$folder"
    quietly apt-get install --download-only --yes --no-install-recommends "$@"
    unpack_fetched "$folder" "$scratch/apt/archives"
}

unpack_fetched() {
    local package
    for package in "$2"/*.deb; do
        quietly dpkg -x "$package" "$1"
        rm "$package"
    done
}
