# Completion of bhctl for bash.
_bhctl()
{
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    local verbs="status queue list show why connectors explain check verify audit policy flush hold release
        cancel bounce requeue pause resume reload jobs probe submit hash-password help"
    local options="--json --offline --path --config --control --id --destination --connector
        --sender --from --recipient --age --state --all --reason --until --dry-run --plan --allow-weaken
        --content --matrix --csv --watch --since --require --events --top --limit --size"

    case $prev in
    --require)
        mapfile -t COMPREPLY < <(compgen -W "tls authenticated" -- "$cur")
        return
        ;;
    policy)
        mapfile -t COMPREPLY < <(compgen -W "show" -- "$cur")
        return
        ;;
    --path | --events)
        mapfile -t COMPREPLY < <(compgen -d -- "$cur")
        return
        ;;
    --config | --control | --file | check)
        mapfile -t COMPREPLY < <(compgen -f -- "$cur")
        return
        ;;
    --state)
        mapfile -t COMPREPLY < <(compgen -W "ready due held" -- "$cur")
        return
        ;;
    --connector | connectors)
        mapfile -t COMPREPLY < <(compgen -W "$(bhctl connectors --json 2>/dev/null |
            sed -n 's/^,*{"connector":"\([^"]*\)".*/\1/p')" -- "$cur")
        return
        ;;
    esac
    if [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$cur")
    elif ((COMP_CWORD == 1)) || [[ $prev == help ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$verbs" -- "$cur")
    fi
}
complete -F _bhctl bhctl
