# bash completion for greeter(8)

_greeter() {
	local current=$2 previous=$3
	COMPREPLY=()
	case $previous in
	--config)
		if [[ $current == */* ]]; then
			compopt -o filenames
			mapfile -t COMPREPLY < <(compgen -f -X '!*.toml' -- "$current"; compgen -d -- "$current")
		else
			mapfile -t COMPREPLY < <(compgen -W "$(_greeter_settings)" -- "$current")
		fi
		return
		;;
	--listen)
		# Only paths of Unix sockets are completed, not IP addresses.
		if [[ $current == /* ]]; then
			compopt -o filenames
			mapfile -t COMPREPLY < <(compgen -f -- "$current")
		fi
		return
		;;
	--preview)
		if [[ $current != -* ]]; then
			mapfile -t COMPREPLY < <(compgen -W "$(_greeter_sockets)" -- "$current")
			return
		fi
		;;
	esac
	mapfile -t COMPREPLY < <(compgen -W '--config --listen --check --quiet --show-config --preview --reload --help --version' -- "$current")
}

# Names of the settings: those of the packaged units, and any that were added.
_greeter_settings() {
	local file
	for file in /etc/greeter/*.toml /run/greeter/*.toml /usr/lib/greeter/*.toml; do
		[[ -e $file ]] || continue
		file=${file##*/}
		echo "${file%.toml}"
	done
}

# Names of the sockets for which the settings of the command line have a
# [greeting.NAME] table.
_greeter_sockets() {
	local at settings=greeter
	for ((at = 1; at < ${#COMP_WORDS[@]} - 1; at++)); do
		[[ ${COMP_WORDS[at]} == --config ]] && settings=${COMP_WORDS[at + 1]}
	done
	greeter --config "$settings" --show-config 2>/dev/null |
		sed -n 's/^greeting\."\([A-Za-z0-9_-]*\)"\..*/\1/p' | sort -u
}

complete -F _greeter greeter
