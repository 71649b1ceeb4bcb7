# shellcheck shell=bash disable=SC2034 # full is for the script
# Reads the arguments of a script that tests several releases of Debian, "soak" and the name
# of a release, into $full and $SUITE. Scripts source this file before lib.sh:
#     . "$(dirname "$0")/arguments.sh" DEFAULT_RELEASE "$@"
SUITE=$1 full=
for argument in "${@:2}"; do
	case $argument in
		soak) full=soak ;;
		--image) ;;
		*) SUITE=$argument ;;
	esac
done
export SUITE
