"""Operators that make, copy or rename tensors: no arithmetic. Views need no entry here, since torch marks them itself."""

from .table import free

free(
    *(
        f"aten::{name}"
        for name in (
            # copies and layouts
            "clone copy _to_copy to contiguous lift lift_fresh lift_fresh_copy alias _unsafe_view _reshape_alias reshape "
            "_reshape_copy cat stack concat hstack vstack pad constant_pad_nd reflection_pad1d reflection_pad2d "
            "reflection_pad3d replication_pad1d replication_pad2d replication_pad3d roll flip rot90 repeat "
            "repeat_interleave tile split split_with_sizes split_copy split_with_sizes_copy unsafe_split unsafe_chunk "
            "pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle im2col unfold_copy expand_copy view_copy "
            "permute_copy transpose_copy slice_scatter select_scatter as_strided as_strided_scatter diagonal_scatter "
            "diag_embed view_as_real_copy _conj_physical _neg_view _pack_padded_sequence _pad_packed_sequence tril_indices "
            "triu_indices meshgrid block_diag cartesian_prod combinations set_ resize_ _pin_memory narrow_copy "
            "_nested_tensor_from_mask detach_copy resolve_conj resolve_neg _fw_primal _make_dual slice_inverse "
            # their backward passes that only move data
            "slice_backward select_backward unfold_backward value_selecting_reduction_backward "
            "reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward "
            "replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward "
            "diagonal_backward _pack_padded_sequence_backward "
            # new tensors, filled or not
            "empty empty_like empty_strided empty_permuted new_empty new_empty_strided new_zeros new_ones new_full zeros "
            "zeros_like ones ones_like full full_like fill zero _efficientzerotensor arange range linspace logspace eye "
            "scalar_tensor tensor _local_scalar_dense hann_window hamming_window "
            # random numbers
            "rand rand_like randn randn_like randint randint_like randperm bernoulli uniform normal normal_functional "
            "multinomial exponential random log_normal geometric cauchy "
            # questions about a tensor
            "is_same_size _assert_async _assert_tensor_metadata sym_size sym_numel sym_stride "
            "_linalg_check_errors is_nonzero _cast_Float item"
        ).split()
    ),
    "prim::device",
    "prim::layout",
    "profiler::_record_function_enter_new",
    "profiler::_record_function_exit",
    family="movement",
)
