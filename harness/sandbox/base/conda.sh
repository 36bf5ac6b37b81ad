# A stand-in for conda in images built without it: /opt/miniconda3/etc/profile.d/conda.sh, sourced by
# /opt/miniconda3/bin/activate. Does what evaluation scripts and agents use, under `set -u` too: `conda activate [name]`
# and `conda deactivate`.
conda() {
    case "${1-}" in
    activate)
        conda deactivate
        export CONDA_DEFAULT_ENV="${2:-base}"
        [ "$CONDA_DEFAULT_ENV" = base ] && export CONDA_PREFIX=/opt/miniconda3 ||
            export CONDA_PREFIX="/opt/miniconda3/envs/$CONDA_DEFAULT_ENV"
        if [ ! -d "$CONDA_PREFIX/bin" ]; then
            echo "EnvironmentNameNotFound: Could not find conda environment: $CONDA_DEFAULT_ENV" >&2
            unset CONDA_DEFAULT_ENV CONDA_PREFIX
            return 1
        fi
        export PATH="$CONDA_PREFIX/bin:$PATH"
        ;;
    deactivate)
        if [ -n "${CONDA_PREFIX-}" ]; then
            PATH=":$PATH:"
            PATH="${PATH//:"$CONDA_PREFIX"\/bin:/:}"
            PATH="${PATH#:}"
            export PATH="${PATH%:}"
            unset CONDA_DEFAULT_ENV CONDA_PREFIX
        fi
        ;;
    *)
        echo "this stand-in for conda knows activate and deactivate only" >&2
        return 2
        ;;
    esac
}
