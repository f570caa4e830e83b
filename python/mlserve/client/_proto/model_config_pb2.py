"""Written by `make protos` from protos/model_config.proto; do not edit."""

from google.protobuf.message_factory import GetMessageClass

from mlserve.client._proto.pool import POOL

DESCRIPTOR = POOL.AddSerializedFile(
    b'\n\x12model_config.proto\x12\tinference"\x96\x01\n\x10ModelRateLimiter\x127\n\tresources\x18\x01 \x03(\x0b2'
    b'$.inference.ModelRateLimiter.Resource\x12\x10\n\x08priority\x18\x02 \x01(\r\x1a7\n\x08Resource\x12\x0c\n\x04n'
    b'ame\x18\x01 \x01(\t\x12\x0e\n\x06global\x18\x02 \x01(\x08\x12\r\n\x05count\x18\x03 \x01(\r"\x87\x04\n\x12ModelInstanceGroup\x12\x0c\n\x04name\x18'
    b'\x01 \x01(\t\x120\n\x04kind\x18\x04 \x01(\x0e2".inference.ModelInstanceGroup.Kind\x12\r\n\x05count\x18\x02 \x01(\x05\x121'
    b'\n\x0crate_limiter\x18\x06 \x01(\x0b2\x1b.inference.ModelRateLimiter\x12\x0c\n\x04gpus\x18\x03 \x03(\x05\x12H\n\x11secon'
    b'dary_devices\x18\x08 \x03(\x0b2-.inference.ModelInstanceGroup.SecondaryDevice\x12\x0f\n\x07pro'
    b'file\x18\x05 \x03(\t\x12\x0f\n\x07passive\x18\x07 \x01(\x08\x12\x13\n\x0bhost_policy\x18\t \x01(\t\x1a\x9c\x01\n\x0fSecondaryDevice\x12O\n\x04'
    b'kind\x18\x01 \x01(\x0e2A.inference.ModelInstanceGroup.SecondaryDevice.SecondaryDevic'
    b'eKind\x12\x11\n\tdevice_id\x18\x02 \x01(\x03"%\n\x13SecondaryDeviceKind\x12\x0e\n\nKIND_NVDLA\x10\x00"A\n\x04Kind\x12'
    b'\r\n\tKIND_AUTO\x10\x00\x12\x0c\n\x08KIND_GPU\x10\x01\x12\x0c\n\x08KIND_CPU\x10\x02\x12\x0e\n\nKIND_MODEL\x10\x03"#\n\x12ModelTenso'
    b'rReshape\x12\r\n\x05shape\x18\x01 \x03(\x03"\xd3\x02\n\nModelInput\x12\x0c\n\x04name\x18\x01 \x01(\t\x12&\n\tdata_type\x18\x02 \x01(\x0e2'
    b'\x13.inference.DataType\x12,\n\x06format\x18\x03 \x01(\x0e2\x1c.inference.ModelInput.Format\x12\x0c\n\x04di'
    b'ms\x18\x04 \x03(\x03\x12.\n\x07reshape\x18\x05 \x01(\x0b2\x1d.inference.ModelTensorReshape\x12\x17\n\x0fis_shape_ten'
    b'sor\x18\x06 \x01(\x08\x12\x1a\n\x12allow_ragged_batch\x18\x07 \x01(\x08\x12\x10\n\x08optional\x18\x08 \x01(\x08\x12\x1f\n\x17is_non_linear'
    b'_format_io\x18\t \x01(\x08";\n\x06Format\x12\x0f\n\x0bFORMAT_NONE\x10\x00\x12\x0f\n\x0bFORMAT_NHWC\x10\x01\x12\x0f\n\x0bFORMAT_N'
    b'CHW\x10\x02"\xd3\x01\n\x0bModelOutput\x12\x0c\n\x04name\x18\x01 \x01(\t\x12&\n\tdata_type\x18\x02 \x01(\x0e2\x13.inference.DataT'
    b'ype\x12\x0c\n\x04dims\x18\x03 \x03(\x03\x12.\n\x07reshape\x18\x05 \x01(\x0b2\x1d.inference.ModelTensorReshape\x12\x16\n\x0elab'
    b'el_filename\x18\x04 \x01(\t\x12\x17\n\x0fis_shape_tensor\x18\x06 \x01(\x08\x12\x1f\n\x17is_non_linear_format_io\x18\x07 '
    b'\x01(\x08"\xd9\x02\n\nBatchInput\x12(\n\x04kind\x18\x01 \x01(\x0e2\x1a.inference.BatchInput.Kind\x12\x13\n\x0btarget_n'
    b'ame\x18\x02 \x03(\t\x12&\n\tdata_type\x18\x03 \x01(\x0e2\x13.inference.DataType\x12\x14\n\x0csource_input\x18\x04 \x03(\t"'
    b'\xcd\x01\n\x04Kind\x12\x17\n\x13BATCH_ELEMENT_COUNT\x10\x00\x12#\n\x1fBATCH_ACCUMULATED_ELEMENT_COUNT\x10\x01\x12-'
    b'\n)BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO\x10\x02\x12$\n BATCH_MAX_ELEMENT_COUNT'
    b'_AS_SHAPE\x10\x03\x12\x14\n\x10BATCH_ITEM_SHAPE\x10\x04\x12\x1c\n\x18BATCH_ITEM_SHAPE_FLATTEN\x10\x05"\x8f\x01\n\x0bBatc'
    b'hOutput\x12\x13\n\x0btarget_name\x18\x01 \x03(\t\x12)\n\x04kind\x18\x02 \x01(\x0e2\x1b.inference.BatchOutput.Kind\x12'
    b'\x14\n\x0csource_input\x18\x03 \x03(\t"*\n\x04Kind\x12"\n\x1eBATCH_SCATTER_WITH_INPUT_SHAPE\x10\x00"\x90\x02\n\x12Mo'
    b'delVersionPolicy\x126\n\x06latest\x18\x01 \x01(\x0b2$.inference.ModelVersionPolicy.LatestH\x00'
    b'\x120\n\x03all\x18\x02 \x01(\x0b2!.inference.ModelVersionPolicy.AllH\x00\x12:\n\x08specific\x18\x03 \x01(\x0b2&.i'
    b'nference.ModelVersionPolicy.SpecificH\x00\x1a\x1e\n\x06Latest\x12\x14\n\x0cnum_versions\x18\x01 \x01(\r\x1a\x05'
    b'\n\x03All\x1a\x1c\n\x08Specific\x12\x10\n\x08versions\x18\x01 \x03(\x03B\x0f\n\rpolicy_choice"\xfd\r\n\x17ModelOptimizati'
    b'onPolicy\x127\n\x05graph\x18\x01 \x01(\x0b2(.inference.ModelOptimizationPolicy.Graph\x12B\n\x08pri'
    b'ority\x18\x02 \x01(\x0e20.inference.ModelOptimizationPolicy.ModelPriority\x125\n\x04cuda\x18\x03 '
    b"\x01(\x0b2'.inference.ModelOptimizationPolicy.Cuda\x12X\n\x16execution_accelerators\x18\x04"
    b' \x01(\x0b28.inference.ModelOptimizationPolicy.ExecutionAccelerators\x12R\n\x13input_'
    b'pinned_memory\x18\x05 \x01(\x0b25.inference.ModelOptimizationPolicy.PinnedMemoryBuff'
    b'er\x12S\n\x14output_pinned_memory\x18\x06 \x01(\x0b25.inference.ModelOptimizationPolicy.Pin'
    b'nedMemoryBuffer\x12&\n\x1egather_kernel_buffer_threshold\x18\x07 \x01(\r\x12\x16\n\x0eeager_batchin'
    b'g\x18\x08 \x01(\x08\x1a\x16\n\x05Graph\x12\r\n\x05level\x18\x01 \x01(\x05\x1a\xba\x05\n\x04Cuda\x12\x0e\n\x06graphs\x18\x01 \x01(\x08\x12\x18\n\x10busy_wait_ev'
    b'ents\x18\x02 \x01(\x08\x12E\n\ngraph_spec\x18\x03 \x03(\x0b21.inference.ModelOptimizationPolicy.Cuda.'
    b'GraphSpec\x12\x1a\n\x12output_copy_stream\x18\x04 \x01(\x08\x1a\xa4\x04\n\tGraphSpec\x12\x12\n\nbatch_size\x18\x01 \x01(\x05\x12'
    b'K\n\x05input\x18\x02 \x03(\x0b2<.inference.ModelOptimizationPolicy.Cuda.GraphSpec.InputE'
    b'ntry\x12W\n\x11graph_lower_bound\x18\x03 \x01(\x0b2<.inference.ModelOptimizationPolicy.Cuda'
    b'.GraphSpec.LowerBound\x1a\x14\n\x05Shape\x12\x0b\n\x03dim\x18\x01 \x03(\x03\x1a\xdf\x01\n\nLowerBound\x12\x12\n\nbatch_size'
    b'\x18\x01 \x01(\x05\x12V\n\x05input\x18\x02 \x03(\x0b2G.inference.ModelOptimizationPolicy.Cuda.GraphSpec'
    b'.LowerBound.InputEntry\x1ae\n\nInputEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12F\n\x05value\x18\x02 \x01(\x0b27.infer'
    b'ence.ModelOptimizationPolicy.Cuda.GraphSpec.Shape:\x028\x01\x1ae\n\nInputEntry\x12\x0b\n\x03k'
    b'ey\x18\x01 \x01(\t\x12F\n\x05value\x18\x02 \x01(\x0b27.inference.ModelOptimizationPolicy.Cuda.GraphSp'
    b'ec.Shape:\x028\x01\x1a\xa4\x03\n\x15ExecutionAccelerators\x12g\n\x19gpu_execution_accelerator\x18\x01 \x03('
    b'\x0b2D.inference.ModelOptimizationPolicy.ExecutionAccelerators.Accelerator\x12'
    b'g\n\x19cpu_execution_accelerator\x18\x02 \x03(\x0b2D.inference.ModelOptimizationPolicy.E'
    b'xecutionAccelerators.Accelerator\x1a\xb8\x01\n\x0bAccelerator\x12\x0c\n\x04name\x18\x01 \x01(\t\x12h\n\nparame'
    b'ters\x18\x02 \x03(\x0b2T.inference.ModelOptimizationPolicy.ExecutionAccelerators.Acc'
    b'elerator.ParametersEntry\x1a1\n\x0fParametersEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12\r\n\x05value\x18\x02 \x01(\t:'
    b'\x028\x01\x1a$\n\x12PinnedMemoryBuffer\x12\x0e\n\x06enable\x18\x01 \x01(\x08"I\n\rModelPriority\x12\x14\n\x10PRIORITY_D'
    b'EFAULT\x10\x00\x12\x10\n\x0cPRIORITY_MAX\x10\x01\x12\x10\n\x0cPRIORITY_MIN\x10\x02"\xdb\x01\n\x10ModelQueuePolicy\x12A\n\x0etim'
    b'eout_action\x18\x01 \x01(\x0e2).inference.ModelQueuePolicy.TimeoutAction\x12$\n\x1cdefault_'
    b'timeout_microseconds\x18\x02 \x01(\x04\x12\x1e\n\x16allow_timeout_override\x18\x03 \x01(\x08\x12\x16\n\x0emax_queue_'
    b'size\x18\x04 \x01(\r"&\n\rTimeoutAction\x12\n\n\x06REJECT\x10\x00\x12\t\n\x05DELAY\x10\x01"\x9b\x03\n\x14ModelDynamicBatch'
    b'ing\x12\x1c\n\x14preferred_batch_size\x18\x01 \x03(\x05\x12$\n\x1cmax_queue_delay_microseconds\x18\x02 \x01(\x04\x12'
    b'\x19\n\x11preserve_ordering\x18\x03 \x01(\x08\x12\x17\n\x0fpriority_levels\x18\x04 \x01(\x04\x12\x1e\n\x16default_priority_'
    b'level\x18\x05 \x01(\x04\x129\n\x14default_queue_policy\x18\x06 \x01(\x0b2\x1b.inference.ModelQueuePolicy\x12W'
    b'\n\x15priority_queue_policy\x18\x07 \x03(\x0b28.inference.ModelDynamicBatching.PriorityQ'
    b'ueuePolicyEntry\x1aW\n\x18PriorityQueuePolicyEntry\x12\x0b\n\x03key\x18\x01 \x01(\x04\x12*\n\x05value\x18\x02 \x01(\x0b2'
    b'\x1b.inference.ModelQueuePolicy:\x028\x01"\xee\n\n\x15ModelSequenceBatching\x12A\n\x06direct\x18\x03 \x01'
    b'(\x0b2/.inference.ModelSequenceBatching.StrategyDirectH\x00\x12A\n\x06oldest\x18\x04 \x01(\x0b2/.'
    b'inference.ModelSequenceBatching.StrategyOldestH\x00\x12&\n\x1emax_sequence_idle_mi'
    b'croseconds\x18\x01 \x01(\x04\x12D\n\rcontrol_input\x18\x02 \x03(\x0b2-.inference.ModelSequenceBatchin'
    b'g.ControlInput\x125\n\x05state\x18\x05 \x03(\x0b2&.inference.ModelSequenceBatching.State\x12\x1a\n'
    b'\x12iterative_sequence\x18\x06 \x01(\x08\x1a\xb1\x02\n\x07Control\x12;\n\x04kind\x18\x01 \x01(\x0e2-.inference.ModelSeq'
    b'uenceBatching.Control.Kind\x12\x18\n\x10int32_false_true\x18\x02 \x03(\x05\x12\x17\n\x0ffp32_false_true\x18'
    b'\x03 \x03(\x02\x12\x17\n\x0fbool_false_true\x18\x05 \x03(\x08\x12&\n\tdata_type\x18\x04 \x01(\x0e2\x13.inference.DataType"u'
    b'\n\x04Kind\x12\x1a\n\x16CONTROL_SEQUENCE_START\x10\x00\x12\x1a\n\x16CONTROL_SEQUENCE_READY\x10\x01\x12\x18\n\x14CONTRO'
    b'L_SEQUENCE_END\x10\x02\x12\x1b\n\x17CONTROL_SEQUENCE_CORRID\x10\x03\x1aW\n\x0cControlInput\x12\x0c\n\x04name\x18\x01 '
    b'\x01(\t\x129\n\x07control\x18\x02 \x03(\x0b2(.inference.ModelSequenceBatching.Control\x1a\x8a\x01\n\x0cIniti'
    b'alState\x12&\n\tdata_type\x18\x01 \x01(\x0e2\x13.inference.DataType\x12\x0c\n\x04dims\x18\x02 \x03(\x03\x12\x13\n\tzero_da'
    b'ta\x18\x03 \x01(\x08H\x00\x12\x13\n\tdata_file\x18\x04 \x01(\tH\x00\x12\x0c\n\x04name\x18\x05 \x01(\tB\x0c\n\nstate_data\x1a\xf3\x01\n\x05State\x12\x12\n'
    b'\ninput_name\x18\x01 \x01(\t\x12\x13\n\x0boutput_name\x18\x02 \x01(\t\x12&\n\tdata_type\x18\x03 \x01(\x0e2\x13.inference.Da'
    b'taType\x12\x0c\n\x04dims\x18\x04 \x03(\x03\x12D\n\rinitial_state\x18\x05 \x03(\x0b2-.inference.ModelSequenceBat'
    b'ching.InitialState\x12(\n use_same_buffer_for_input_output\x18\x06 \x01(\x08\x12\x1b\n\x13use_grow'
    b'able_memory\x18\x07 \x01(\x08\x1aX\n\x0eStrategyDirect\x12$\n\x1cmax_queue_delay_microseconds\x18\x01 \x01('
    b'\x04\x12 \n\x18minimum_slot_utilization\x18\x02 \x01(\x02\x1a\x90\x01\n\x0eStrategyOldest\x12\x1f\n\x17max_candidate_'
    b'sequences\x18\x01 \x01(\x05\x12\x1c\n\x14preferred_batch_size\x18\x02 \x03(\x05\x12$\n\x1cmax_queue_delay_microse'
    b'conds\x18\x03 \x01(\x04\x12\x19\n\x11preserve_ordering\x18\x04 \x01(\x08B\x11\n\x0fstrategy_choice"\x95\x03\n\x0fModelEnsem'
    b'bling\x12-\n\x04step\x18\x01 \x03(\x0b2\x1f.inference.ModelEnsembling.Step\x12\x1d\n\x15max_inflight_req'
    b'uests\x18\x02 \x01(\r\x1a\xb3\x02\n\x04Step\x12\x12\n\nmodel_name\x18\x01 \x01(\t\x12\x15\n\rmodel_version\x18\x02 \x01(\x03\x12@\n\tinput'
    b'_map\x18\x03 \x03(\x0b2-.inference.ModelEnsembling.Step.InputMapEntry\x12B\n\noutput_map\x18'
    b'\x04 \x03(\x0b2..inference.ModelEnsembling.Step.OutputMapEntry\x12\x17\n\x0fmodel_namespace'
    b'\x18\x05 \x01(\t\x1a/\n\rInputMapEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12\r\n\x05value\x18\x02 \x01(\t:\x028\x01\x1a0\n\x0eOutputMapEntr'
    b'y\x12\x0b\n\x03key\x18\x01 \x01(\t\x12\r\n\x05value\x18\x02 \x01(\t:\x028\x01"&\n\x0eModelParameter\x12\x14\n\x0cstring_value\x18\x01 \x01('
    b'\t"\xd9\x02\n\x0bModelWarmup\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x12\n\nbatch_size\x18\x02 \x01(\r\x122\n\x06inputs\x18\x03 \x03(\x0b2".in'
    b'ference.ModelWarmup.InputsEntry\x12\r\n\x05count\x18\x04 \x01(\r\x1a\x97\x01\n\x05Input\x12&\n\tdata_type\x18\x01 '
    b'\x01(\x0e2\x13.inference.DataType\x12\x0c\n\x04dims\x18\x02 \x03(\x03\x12\x13\n\tzero_data\x18\x03 \x01(\x08H\x00\x12\x15\n\x0brandom_da'
    b'ta\x18\x04 \x01(\x08H\x00\x12\x19\n\x0finput_data_file\x18\x05 \x01(\tH\x00B\x11\n\x0finput_data_type\x1aK\n\x0bInputsEntry\x12'
    b'\x0b\n\x03key\x18\x01 \x01(\t\x12+\n\x05value\x18\x02 \x01(\x0b2\x1c.inference.ModelWarmup.Input:\x028\x01".\n\x0fModelOp'
    b'erations\x12\x1b\n\x13op_library_filename\x18\x01 \x03(\t"+\n\x16ModelTransactionPolicy\x12\x11\n\tdecou'
    b'pled\x18\x01 \x01(\x08"\xe6\x01\n\x15ModelRepositoryAgents\x126\n\x06agents\x18\x01 \x03(\x0b2&.inference.ModelRe'
    b'positoryAgents.Agent\x1a\x94\x01\n\x05Agent\x12\x0c\n\x04name\x18\x01 \x01(\t\x12J\n\nparameters\x18\x02 \x03(\x0b26.infer'
    b'ence.ModelRepositoryAgents.Agent.ParametersEntry\x1a1\n\x0fParametersEntry\x12\x0b\n\x03k'
    b'ey\x18\x01 \x01(\t\x12\r\n\x05value\x18\x02 \x01(\t:\x028\x01"$\n\x12ModelResponseCache\x12\x0e\n\x06enable\x18\x01 \x01(\x08"\xe2\x02\n\x0cMo'
    b'delMetrics\x12=\n\x0emetric_control\x18\x01 \x03(\x0b2%.inference.ModelMetrics.MetricContro'
    b'l\x1a\x92\x02\n\rMetricControl\x12Q\n\x11metric_identifier\x18\x01 \x01(\x0b26.inference.ModelMetrics.'
    b'MetricControl.MetricIdentifier\x12S\n\x11histogram_options\x18\x02 \x01(\x0b26.inference.Mo'
    b'delMetrics.MetricControl.HistogramOptionsH\x00\x1a"\n\x10MetricIdentifier\x12\x0e\n\x06famil'
    b'y\x18\x01 \x01(\t\x1a#\n\x10HistogramOptions\x12\x0f\n\x07buckets\x18\x01 \x03(\x01B\x10\n\x0emetric_options"\xf3\n\n\x0bModel'
    b'Config\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x10\n\x08platform\x18\x02 \x01(\t\x12\x0f\n\x07backend\x18\x11 \x01(\t\x12\x0f\n\x07runtime\x18\x19 \x01(\t'
    b'\x125\n\x0eversion_policy\x18\x03 \x01(\x0b2\x1d.inference.ModelVersionPolicy\x12\x16\n\x0emax_batch_siz'
    b'e\x18\x04 \x01(\x05\x12$\n\x05input\x18\x05 \x03(\x0b2\x15.inference.ModelInput\x12&\n\x06output\x18\x06 \x03(\x0b2\x16.inferenc'
    b'e.ModelOutput\x12*\n\x0bbatch_input\x18\x14 \x03(\x0b2\x15.inference.BatchInput\x12,\n\x0cbatch_outpu'
    b't\x18\x15 \x03(\x0b2\x16.inference.BatchOutput\x128\n\x0coptimization\x18\x0c \x01(\x0b2".inference.ModelO'
    b'ptimizationPolicy\x12;\n\x10dynamic_batching\x18\x0b \x01(\x0b2\x1f.inference.ModelDynamicBatc'
    b'hingH\x00\x12=\n\x11sequence_batching\x18\r \x01(\x0b2 .inference.ModelSequenceBatchingH\x00\x129\n'
    b'\x13ensemble_scheduling\x18\x0f \x01(\x0b2\x1a.inference.ModelEnsemblingH\x00\x125\n\x0einstance_gro'
    b'up\x18\x07 \x03(\x0b2\x1d.inference.ModelInstanceGroup\x12\x1e\n\x16default_model_filename\x18\x08 \x01(\t\x12'
    b'H\n\x12cc_model_filenames\x18\t \x03(\x0b2,.inference.ModelConfig.CcModelFilenamesEntr'
    b'y\x12;\n\x0bmetric_tags\x18\n \x03(\x0b2&.inference.ModelConfig.MetricTagsEntry\x12:\n\nparame'
    b'ters\x18\x0e \x03(\x0b2&.inference.ModelConfig.ParametersEntry\x12,\n\x0cmodel_warmup\x18\x10 \x03(\x0b'
    b'2\x16.inference.ModelWarmup\x124\n\x10model_operations\x18\x12 \x01(\x0b2\x1a.inference.ModelOper'
    b'ations\x12C\n\x18model_transaction_policy\x18\x13 \x01(\x0b2!.inference.ModelTransactionPol'
    b'icy\x12A\n\x17model_repository_agents\x18\x17 \x01(\x0b2 .inference.ModelRepositoryAgents\x125'
    b'\n\x0eresponse_cache\x18\x18 \x01(\x0b2\x1d.inference.ModelResponseCache\x12.\n\rmodel_metrics\x18\x1a'
    b' \x01(\x0b2\x17.inference.ModelMetrics\x1a7\n\x15CcModelFilenamesEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12\r\n\x05v'
    b'alue\x18\x02 \x01(\t:\x028\x01\x1a1\n\x0fMetricTagsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12\r\n\x05value\x18\x02 \x01(\t:\x028\x01\x1aL\n\x0fPar'
    b'ametersEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12(\n\x05value\x18\x02 \x01(\x0b2\x19.inference.ModelParameter:\x028\x01B'
    b'\x13\n\x11scheduling_choice*\xfa\x01\n\x08DataType\x12\x10\n\x0cTYPE_INVALID\x10\x00\x12\r\n\tTYPE_BOOL\x10\x01\x12\x0e\n\nTY'
    b'PE_UINT8\x10\x02\x12\x0f\n\x0bTYPE_UINT16\x10\x03\x12\x0f\n\x0bTYPE_UINT32\x10\x04\x12\x0f\n\x0bTYPE_UINT64\x10\x05\x12\r\n\tTYPE_IN'
    b'T8\x10\x06\x12\x0e\n\nTYPE_INT16\x10\x07\x12\x0e\n\nTYPE_INT32\x10\x08\x12\x0e\n\nTYPE_INT64\x10\t\x12\r\n\tTYPE_FP16\x10\n\x12\r\n\tT'
    b'YPE_FP32\x10\x0b\x12\r\n\tTYPE_FP64\x10\x0c\x12\x0f\n\x0bTYPE_STRING\x10\r\x12\r\n\tTYPE_BF16\x10\x0eb\x06proto3'
)

ModelRateLimiter = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelRateLimiter"])
ModelInstanceGroup = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelInstanceGroup"])
ModelTensorReshape = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelTensorReshape"])
ModelInput = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelInput"])
ModelOutput = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelOutput"])
BatchInput = GetMessageClass(DESCRIPTOR.message_types_by_name["BatchInput"])
BatchOutput = GetMessageClass(DESCRIPTOR.message_types_by_name["BatchOutput"])
ModelVersionPolicy = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelVersionPolicy"])
ModelOptimizationPolicy = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelOptimizationPolicy"])
ModelQueuePolicy = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelQueuePolicy"])
ModelDynamicBatching = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelDynamicBatching"])
ModelSequenceBatching = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelSequenceBatching"])
ModelEnsembling = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelEnsembling"])
ModelParameter = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelParameter"])
ModelWarmup = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelWarmup"])
ModelOperations = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelOperations"])
ModelTransactionPolicy = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelTransactionPolicy"])
ModelRepositoryAgents = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelRepositoryAgents"])
ModelResponseCache = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelResponseCache"])
ModelMetrics = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelMetrics"])
ModelConfig = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelConfig"])
