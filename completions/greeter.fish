# fish completion for greeter(8)

function __greeter_settings --description 'Names of settings, or paths'
    for file in /etc/greeter/*.toml /run/greeter/*.toml /usr/lib/greeter/*.toml
        string replace --regex '.*/(.*)\.toml$' '$1' $file
    end | sort -u
    # With a slash, the argument is the path of a file.
    string match --quiet '*/*' (commandline -ct); and __fish_complete_suffix .toml
end

function __greeter_sockets --description 'Sockets that have a [greeting.NAME] table'
    set -l words (commandline -opc)
    set -l settings greeter
    if set -l at (contains --index -- --config $words)
        set settings $words[(math $at + 1)]
    end
    greeter --config $settings --show-config 2>/dev/null |
        string replace --filter --regex '^greeting\."([A-Za-z0-9_-]+)"\..*' '$1' | sort -u
end

complete -c greeter -f
complete -c greeter -l config -x -a '(__greeter_settings)' -d 'Read the settings NAME.toml, or this file'
complete -c greeter -l listen -r -d 'Listen on this address without systemd'
complete -c greeter -l check -d 'Validate the settings and exit'
complete -c greeter -l quiet -d 'With --check: print only errors'
complete -c greeter -l reload -x -a '(__fish_complete_pids)' -d 'Make a process reload, then validate the settings'
complete -c greeter -l show-config -d 'Print the merged settings and exit'
complete -c greeter -l preview -d 'Print the greeting and exit'
# fish completes optional arguments only after "=": a separate rule completes this one
# after a space.
complete -c greeter -n '__fish_prev_arg_in --preview' -a '(__greeter_sockets)' -d 'Socket'
complete -c greeter -l help -d 'Print help'
complete -c greeter -l version -d 'Print the version'
