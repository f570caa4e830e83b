"""Written by `make protos` from protos/inference.proto; do not edit."""

from google.protobuf.message_factory import GetMessageClass

from mlserve.client._proto.pool import POOL
from mlserve.client._proto import model_config_pb2  # noqa: F401 -- fills the pool first

DESCRIPTOR = POOL.AddSerializedFile(
    b'\n\x0finference.proto\x12\tinference\x1a\x12model_config.proto"\x13\n\x11ServerLiveRequest""\n'
    b'\x12ServerLiveResponse\x12\x0c\n\x04live\x18\x01 \x01(\x08"\x14\n\x12ServerReadyRequest"$\n\x13ServerReadyRe'
    b'sponse\x12\r\n\x05ready\x18\x01 \x01(\x08"2\n\x11ModelReadyRequest\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0f\n\x07version\x18\x02 \x01('
    b'\t"#\n\x12ModelReadyResponse\x12\r\n\x05ready\x18\x01 \x01(\x08"\x17\n\x15ServerMetadataRequest"K\n\x16Serve'
    b'rMetadataResponse\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0f\n\x07version\x18\x02 \x01(\t\x12\x12\n\nextensions\x18\x03 \x03(\t"5\n\x14'
    b'ModelMetadataRequest\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0f\n\x07version\x18\x02 \x01(\t"\x86\x03\n\x15ModelMetadataRes'
    b'ponse\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x10\n\x08versions\x18\x02 \x03(\t\x12\x10\n\x08platform\x18\x03 \x01(\t\x12?\n\x06inputs\x18\x04 \x03(\x0b2'
    b'/.inference.ModelMetadataResponse.TensorMetadata\x12@\n\x07outputs\x18\x05 \x03(\x0b2/.infe'
    b'rence.ModelMetadataResponse.TensorMetadata\x12D\n\nproperties\x18\x06 \x03(\x0b20.inferen'
    b'ce.ModelMetadataResponse.PropertiesEntry\x1a?\n\x0eTensorMetadata\x12\x0c\n\x04name\x18\x01 \x01(\t'
    b'\x12\x10\n\x08datatype\x18\x02 \x01(\t\x12\r\n\x05shape\x18\x03 \x03(\x03\x1a1\n\x0fPropertiesEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12\r\n\x05val'
    b'ue\x18\x02 \x01(\t:\x028\x01"\x99\x01\n\x0eInferParameter\x12\x14\n\nbool_param\x18\x01 \x01(\x08H\x00\x12\x15\n\x0bint64_param\x18\x02 \x01'
    b'(\x03H\x00\x12\x16\n\x0cstring_param\x18\x03 \x01(\tH\x00\x12\x16\n\x0cdouble_param\x18\x04 \x01(\x01H\x00\x12\x16\n\x0cuint64_param\x18\x05 \x01'
    b'(\x04H\x00B\x12\n\x10parameter_choice"\xd0\x01\n\x13InferTensorContents\x12\x15\n\rbool_contents\x18\x01 \x03(\x08\x12'
    b'\x14\n\x0cint_contents\x18\x02 \x03(\x05\x12\x16\n\x0eint64_contents\x18\x03 \x03(\x03\x12\x15\n\ruint_contents\x18\x04 \x03(\r\x12\x17\n\x0f'
    b'uint64_contents\x18\x05 \x03(\x04\x12\x15\n\rfp32_contents\x18\x06 \x03(\x02\x12\x15\n\rfp64_contents\x18\x07 \x03(\x01\x12\x16\n\x0eb'
    b'ytes_contents\x18\x08 \x03(\x0c"\xee\x06\n\x11ModelInferRequest\x12\x12\n\nmodel_name\x18\x01 \x01(\t\x12\x15\n\rmodel_v'
    b'ersion\x18\x02 \x01(\t\x12\n\n\x02id\x18\x03 \x01(\t\x12@\n\nparameters\x18\x04 \x03(\x0b2,.inference.ModelInferReque'
    b'st.ParametersEntry\x12=\n\x06inputs\x18\x05 \x03(\x0b2-.inference.ModelInferRequest.InferIn'
    b'putTensor\x12H\n\x07outputs\x18\x06 \x03(\x0b27.inference.ModelInferRequest.InferRequestedO'
    b'utputTensor\x12\x1a\n\x12raw_input_contents\x18\x07 \x03(\x0c\x1a\x94\x02\n\x10InferInputTensor\x12\x0c\n\x04name\x18\x01 \x01'
    b'(\t\x12\x10\n\x08datatype\x18\x02 \x01(\t\x12\r\n\x05shape\x18\x03 \x03(\x03\x12Q\n\nparameters\x18\x04 \x03(\x0b2=.inference.Mode'
    b'lInferRequest.InferInputTensor.ParametersEntry\x120\n\x08contents\x18\x05 \x01(\x0b2\x1e.infer'
    b'ence.InferTensorContents\x1aL\n\x0fParametersEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12(\n\x05value\x18\x02 \x01(\x0b2'
    b'\x19.inference.InferParameter:\x028\x01\x1a\xd5\x01\n\x1aInferRequestedOutputTensor\x12\x0c\n\x04name\x18\x01 '
    b'\x01(\t\x12[\n\nparameters\x18\x02 \x03(\x0b2G.inference.ModelInferRequest.InferRequestedOutp'
    b'utTensor.ParametersEntry\x1aL\n\x0fParametersEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12(\n\x05value\x18\x02 \x01(\x0b2'
    b'\x19.inference.InferParameter:\x028\x01\x1aL\n\x0fParametersEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12(\n\x05value\x18'
    b'\x02 \x01(\x0b2\x19.inference.InferParameter:\x028\x01"\xd5\x04\n\x12ModelInferResponse\x12\x12\n\nmodel_nam'
    b'e\x18\x01 \x01(\t\x12\x15\n\rmodel_version\x18\x02 \x01(\t\x12\n\n\x02id\x18\x03 \x01(\t\x12A\n\nparameters\x18\x04 \x03(\x0b2-.inferen'
    b'ce.ModelInferResponse.ParametersEntry\x12@\n\x07outputs\x18\x05 \x03(\x0b2/.inference.Model'
    b'InferResponse.InferOutputTensor\x12\x1b\n\x13raw_output_contents\x18\x06 \x03(\x0c\x1a\x97\x02\n\x11InferOu'
    b'tputTensor\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x10\n\x08datatype\x18\x02 \x01(\t\x12\r\n\x05shape\x18\x03 \x03(\x03\x12S\n\nparameters\x18'
    b'\x04 \x03(\x0b2?.inference.ModelInferResponse.InferOutputTensor.ParametersEntry\x120'
    b'\n\x08contents\x18\x05 \x01(\x0b2\x1e.inference.InferTensorContents\x1aL\n\x0fParametersEntry\x12\x0b\n\x03k'
    b'ey\x18\x01 \x01(\t\x12(\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferParameter:\x028\x01\x1aL\n\x0fParametersEntr'
    b'y\x12\x0b\n\x03key\x18\x01 \x01(\t\x12(\n\x05value\x18\x02 \x01(\x0b2\x19.inference.InferParameter:\x028\x01"h\n\x18ModelStr'
    b'eamInferResponse\x12\x15\n\rerror_message\x18\x01 \x01(\t\x125\n\x0einfer_response\x18\x02 \x01(\x0b2\x1d.infere'
    b'nce.ModelInferResponse"3\n\x12ModelConfigRequest\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0f\n\x07version\x18\x02 '
    b'\x01(\t"=\n\x13ModelConfigResponse\x12&\n\x06config\x18\x01 \x01(\x0b2\x16.inference.ModelConfig"7\n\x16Mo'
    b'delStatisticsRequest\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0f\n\x07version\x18\x02 \x01(\t".\n\x11StatisticDuration'
    b'\x12\r\n\x05count\x18\x01 \x01(\x04\x12\n\n\x02ns\x18\x02 \x01(\x04"\x9c\x03\n\x0fInferStatistics\x12-\n\x07success\x18\x01 \x01(\x0b2\x1c.infer'
    b'ence.StatisticDuration\x12*\n\x04fail\x18\x02 \x01(\x0b2\x1c.inference.StatisticDuration\x12+\n\x05qu'
    b'eue\x18\x03 \x01(\x0b2\x1c.inference.StatisticDuration\x123\n\rcompute_input\x18\x04 \x01(\x0b2\x1c.inferen'
    b'ce.StatisticDuration\x123\n\rcompute_infer\x18\x05 \x01(\x0b2\x1c.inference.StatisticDuratio'
    b'n\x124\n\x0ecompute_output\x18\x06 \x01(\x0b2\x1c.inference.StatisticDuration\x12/\n\tcache_hit\x18\x07 \x01'
    b'(\x0b2\x1c.inference.StatisticDuration\x120\n\ncache_miss\x18\x08 \x01(\x0b2\x1c.inference.Statist'
    b'icDuration"\xc3\x02\n\x17InferResponseStatistics\x123\n\rcompute_infer\x18\x01 \x01(\x0b2\x1c.inferenc'
    b'e.StatisticDuration\x124\n\x0ecompute_output\x18\x02 \x01(\x0b2\x1c.inference.StatisticDuratio'
    b'n\x12-\n\x07success\x18\x03 \x01(\x0b2\x1c.inference.StatisticDuration\x12*\n\x04fail\x18\x04 \x01(\x0b2\x1c.inferen'
    b'ce.StatisticDuration\x124\n\x0eempty_response\x18\x05 \x01(\x0b2\x1c.inference.StatisticDurati'
    b'on\x12,\n\x06cancel\x18\x06 \x01(\x0b2\x1c.inference.StatisticDuration"\xca\x01\n\x14InferBatchStatistic'
    b's\x12\x12\n\nbatch_size\x18\x01 \x01(\x04\x123\n\rcompute_input\x18\x02 \x01(\x0b2\x1c.inference.StatisticDurati'
    b'on\x123\n\rcompute_infer\x18\x03 \x01(\x0b2\x1c.inference.StatisticDuration\x124\n\x0ecompute_outpu'
    b't\x18\x04 \x01(\x0b2\x1c.inference.StatisticDuration":\n\x0bMemoryUsage\x12\x0c\n\x04type\x18\x01 \x01(\t\x12\n\n\x02id'
    b'\x18\x02 \x01(\x03\x12\x11\n\tbyte_size\x18\x03 \x01(\x04"\xb4\x03\n\x0fModelStatistics\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0f\n\x07version\x18\x02'
    b' \x01(\t\x12\x16\n\x0elast_inference\x18\x03 \x01(\x04\x12\x17\n\x0finference_count\x18\x04 \x01(\x04\x12\x17\n\x0fexecution_count'
    b'\x18\x05 \x01(\x04\x123\n\x0finference_stats\x18\x06 \x01(\x0b2\x1a.inference.InferStatistics\x124\n\x0bbatch_sta'
    b'ts\x18\x07 \x03(\x0b2\x1f.inference.InferBatchStatistics\x12,\n\x0cmemory_usage\x18\x08 \x03(\x0b2\x16.infere'
    b'nce.MemoryUsage\x12E\n\x0eresponse_stats\x18\t \x03(\x0b2-.inference.ModelStatistics.Resp'
    b'onseStatsEntry\x1aX\n\x12ResponseStatsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x121\n\x05value\x18\x02 \x01(\x0b2".infer'
    b'ence.InferResponseStatistics:\x028\x01"J\n\x17ModelStatisticsResponse\x12/\n\x0bmodel_sta'
    b'ts\x18\x01 \x03(\x0b2\x1a.inference.ModelStatistics"\x8a\x01\n\x18ModelRepositoryParameter\x12\x14\n\nboo'
    b'l_param\x18\x01 \x01(\x08H\x00\x12\x15\n\x0bint64_param\x18\x02 \x01(\x03H\x00\x12\x16\n\x0cstring_param\x18\x03 \x01(\tH\x00\x12\x15\n\x0bbytes_'
    b'param\x18\x04 \x01(\x0cH\x00B\x12\n\x10parameter_choice"@\n\x16RepositoryIndexRequest\x12\x17\n\x0frepositor'
    b'y_name\x18\x01 \x01(\t\x12\r\n\x05ready\x18\x02 \x01(\x08"\xa4\x01\n\x17RepositoryIndexResponse\x12=\n\x06models\x18\x01 \x03(\x0b2'
    b'-.inference.RepositoryIndexResponse.ModelIndex\x1aJ\n\nModelIndex\x12\x0c\n\x04name\x18\x01 \x01'
    b'(\t\x12\x0f\n\x07version\x18\x02 \x01(\t\x12\r\n\x05state\x18\x03 \x01(\t\x12\x0e\n\x06reason\x18\x04 \x01(\t"\xec\x01\n\x1aRepositoryModelLo'
    b'adRequest\x12\x17\n\x0frepository_name\x18\x01 \x01(\t\x12\x12\n\nmodel_name\x18\x02 \x01(\t\x12I\n\nparameters\x18\x03 \x03'
    b'(\x0b25.inference.RepositoryModelLoadRequest.ParametersEntry\x1aV\n\x0fParametersE'
    b'ntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x122\n\x05value\x18\x02 \x01(\x0b2#.inference.ModelRepositoryParameter:\x028'
    b'\x01"\x1d\n\x1bRepositoryModelLoadResponse"\xf0\x01\n\x1cRepositoryModelUnloadRequest\x12\x17\n\x0frep'
    b'ository_name\x18\x01 \x01(\t\x12\x12\n\nmodel_name\x18\x02 \x01(\t\x12K\n\nparameters\x18\x03 \x03(\x0b27.inference.R'
    b'epositoryModelUnloadRequest.ParametersEntry\x1aV\n\x0fParametersEntry\x12\x0b\n\x03key\x18\x01 '
    b'\x01(\t\x122\n\x05value\x18\x02 \x01(\x0b2#.inference.ModelRepositoryParameter:\x028\x01"\x1f\n\x1dRepositor'
    b'yModelUnloadResponse"/\n\x1fSystemSharedMemoryStatusRequest\x12\x0c\n\x04name\x18\x01 \x01(\t"\xa5\x02'
    b'\n SystemSharedMemoryStatusResponse\x12I\n\x07regions\x18\x01 \x03(\x0b28.inference.SystemSh'
    b'aredMemoryStatusResponse.RegionsEntry\x1aL\n\x0cRegionStatus\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0b\n\x03k'
    b'ey\x18\x02 \x01(\t\x12\x0e\n\x06offset\x18\x03 \x01(\x04\x12\x11\n\tbyte_size\x18\x04 \x01(\x04\x1ah\n\x0cRegionsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t'
    b'\x12G\n\x05value\x18\x02 \x01(\x0b28.inference.SystemSharedMemoryStatusResponse.RegionStatu'
    b's:\x028\x01"a\n!SystemSharedMemoryRegisterRequest\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x0b\n\x03key\x18\x02 \x01(\t\x12\x0e\n'
    b'\x06offset\x18\x03 \x01(\x04\x12\x11\n\tbyte_size\x18\x04 \x01(\x04"$\n"SystemSharedMemoryRegisterResponse"3'
    b'\n#SystemSharedMemoryUnregisterRequest\x12\x0c\n\x04name\x18\x01 \x01(\t"&\n$SystemSharedMemor'
    b'yUnregisterResponse"-\n\x1dCudaSharedMemoryStatusRequest\x12\x0c\n\x04name\x18\x01 \x01(\t"\x95\x02\n\x1eC'
    b'udaSharedMemoryStatusResponse\x12G\n\x07regions\x18\x01 \x03(\x0b26.inference.CudaSharedMem'
    b'oryStatusResponse.RegionsEntry\x1aB\n\x0cRegionStatus\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x11\n\tdevice_i'
    b'd\x18\x02 \x01(\x04\x12\x11\n\tbyte_size\x18\x03 \x01(\x04\x1af\n\x0cRegionsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12E\n\x05value\x18\x02 \x01(\x0b26'
    b'.inference.CudaSharedMemoryStatusResponse.RegionStatus:\x028\x01"i\n\x1fCudaShared'
    b'MemoryRegisterRequest\x12\x0c\n\x04name\x18\x01 \x01(\t\x12\x12\n\nraw_handle\x18\x02 \x01(\x0c\x12\x11\n\tdevice_id\x18\x03 \x01'
    b'(\x03\x12\x11\n\tbyte_size\x18\x04 \x01(\x04""\n CudaSharedMemoryRegisterResponse"1\n!CudaSharedM'
    b'emoryUnregisterRequest\x12\x0c\n\x04name\x18\x01 \x01(\t"$\n"CudaSharedMemoryUnregisterRespon'
    b'se"\xe6\x01\n\x13TraceSettingRequest\x12>\n\x08settings\x18\x01 \x03(\x0b2,.inference.TraceSettingReq'
    b'uest.SettingsEntry\x12\x12\n\nmodel_name\x18\x02 \x01(\t\x1a\x1d\n\x0cSettingValue\x12\r\n\x05value\x18\x01 \x03(\t\x1a\\\n'
    b'\rSettingsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12:\n\x05value\x18\x02 \x01(\x0b2+.inference.TraceSettingReque'
    b'st.SettingValue:\x028\x01"\xd5\x01\n\x14TraceSettingResponse\x12?\n\x08settings\x18\x01 \x03(\x0b2-.inferen'
    b'ce.TraceSettingResponse.SettingsEntry\x1a\x1d\n\x0cSettingValue\x12\r\n\x05value\x18\x01 \x03(\t\x1a]\n\r'
    b'SettingsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12;\n\x05value\x18\x02 \x01(\x0b2,.inference.TraceSettingRespon'
    b'se.SettingValue:\x028\x01"\x9a\x02\n\x12LogSettingsRequest\x12=\n\x08settings\x18\x01 \x03(\x0b2+.inference'
    b'.LogSettingsRequest.SettingsEntry\x1ah\n\x0cSettingValue\x12\x14\n\nbool_param\x18\x01 \x01(\x08H\x00\x12'
    b'\x16\n\x0cuint32_param\x18\x02 \x01(\rH\x00\x12\x16\n\x0cstring_param\x18\x03 \x01(\tH\x00B\x12\n\x10parameter_choice\x1a[\n\rS'
    b'ettingsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x129\n\x05value\x18\x02 \x01(\x0b2*.inference.LogSettingsRequest.'
    b'SettingValue:\x028\x01"\x9d\x02\n\x13LogSettingsResponse\x12>\n\x08settings\x18\x01 \x03(\x0b2,.inference.L'
    b'ogSettingsResponse.SettingsEntry\x1ah\n\x0cSettingValue\x12\x14\n\nbool_param\x18\x01 \x01(\x08H\x00\x12\x16'
    b'\n\x0cuint32_param\x18\x02 \x01(\rH\x00\x12\x16\n\x0cstring_param\x18\x03 \x01(\tH\x00B\x12\n\x10parameter_choice\x1a\\\n\rSe'
    b'ttingsEntry\x12\x0b\n\x03key\x18\x01 \x01(\t\x12:\n\x05value\x18\x02 \x01(\x0b2+.inference.LogSettingsResponse.'
    b'SettingValue:\x028\x012\xb7\x0f\n\x14GRPCInferenceService\x12K\n\nServerLive\x12\x1c.inference.Serv'
    b'erLiveRequest\x1a\x1d.inference.ServerLiveResponse"\x00\x12N\n\x0bServerReady\x12\x1d.inferenc'
    b'e.ServerReadyRequest\x1a\x1e.inference.ServerReadyResponse"\x00\x12K\n\nModelReady\x12\x1c.i'
    b'nference.ModelReadyRequest\x1a\x1d.inference.ModelReadyResponse"\x00\x12W\n\x0eServerMet'
    b'adata\x12 .inference.ServerMetadataRequest\x1a!.inference.ServerMetadataRespon'
    b'se"\x00\x12T\n\rModelMetadata\x12\x1f.inference.ModelMetadataRequest\x1a .inference.Model'
    b'MetadataResponse"\x00\x12K\n\nModelInfer\x12\x1c.inference.ModelInferRequest\x1a\x1d.inferen'
    b'ce.ModelInferResponse"\x00\x12[\n\x10ModelStreamInfer\x12\x1c.inference.ModelInferReques'
    b't\x1a#.inference.ModelStreamInferResponse"\x00(\x010\x01\x12N\n\x0bModelConfig\x12\x1d.inference.'
    b'ModelConfigRequest\x1a\x1e.inference.ModelConfigResponse"\x00\x12Z\n\x0fModelStatistics\x12'
    b'!.inference.ModelStatisticsRequest\x1a".inference.ModelStatisticsResponse"\x00'
    b'\x12Z\n\x0fRepositoryIndex\x12!.inference.RepositoryIndexRequest\x1a".inference.Repos'
    b'itoryIndexResponse"\x00\x12f\n\x13RepositoryModelLoad\x12%.inference.RepositoryModelL'
    b'oadRequest\x1a&.inference.RepositoryModelLoadResponse"\x00\x12l\n\x15RepositoryModelU'
    b"nload\x12'.inference.RepositoryModelUnloadRequest\x1a(.inference.RepositoryMod"
    b'elUnloadResponse"\x00\x12u\n\x18SystemSharedMemoryStatus\x12*.inference.SystemSharedM'
    b'emoryStatusRequest\x1a+.inference.SystemSharedMemoryStatusResponse"\x00\x12{\n\x1aSys'
    b'temSharedMemoryRegister\x12,.inference.SystemSharedMemoryRegisterRequest\x1a-.'
    b'inference.SystemSharedMemoryRegisterResponse"\x00\x12\x81\x01\n\x1cSystemSharedMemoryUnr'
    b'egister\x12..inference.SystemSharedMemoryUnregisterRequest\x1a/.inference.Syst'
    b'emSharedMemoryUnregisterResponse"\x00\x12o\n\x16CudaSharedMemoryStatus\x12(.inference'
    b'.CudaSharedMemoryStatusRequest\x1a).inference.CudaSharedMemoryStatusRespons'
    b'e"\x00\x12u\n\x18CudaSharedMemoryRegister\x12*.inference.CudaSharedMemoryRegisterRequ'
    b'est\x1a+.inference.CudaSharedMemoryRegisterResponse"\x00\x12{\n\x1aCudaSharedMemoryUn'
    b'register\x12,.inference.CudaSharedMemoryUnregisterRequest\x1a-.inference.CudaS'
    b'haredMemoryUnregisterResponse"\x00\x12Q\n\x0cTraceSetting\x12\x1e.inference.TraceSetting'
    b'Request\x1a\x1f.inference.TraceSettingResponse"\x00\x12N\n\x0bLogSettings\x12\x1d.inference.Lo'
    b'gSettingsRequest\x1a\x1e.inference.LogSettingsResponse"\x00b\x06proto3'
)

ServerLiveRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerLiveRequest"])
ServerLiveResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerLiveResponse"])
ServerReadyRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerReadyRequest"])
ServerReadyResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerReadyResponse"])
ModelReadyRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelReadyRequest"])
ModelReadyResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelReadyResponse"])
ServerMetadataRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerMetadataRequest"])
ServerMetadataResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ServerMetadataResponse"])
ModelMetadataRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelMetadataRequest"])
ModelMetadataResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelMetadataResponse"])
InferParameter = GetMessageClass(DESCRIPTOR.message_types_by_name["InferParameter"])
InferTensorContents = GetMessageClass(DESCRIPTOR.message_types_by_name["InferTensorContents"])
ModelInferRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelInferRequest"])
ModelInferResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelInferResponse"])
ModelStreamInferResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelStreamInferResponse"])
ModelConfigRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelConfigRequest"])
ModelConfigResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelConfigResponse"])
ModelStatisticsRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelStatisticsRequest"])
StatisticDuration = GetMessageClass(DESCRIPTOR.message_types_by_name["StatisticDuration"])
InferStatistics = GetMessageClass(DESCRIPTOR.message_types_by_name["InferStatistics"])
InferResponseStatistics = GetMessageClass(DESCRIPTOR.message_types_by_name["InferResponseStatistics"])
InferBatchStatistics = GetMessageClass(DESCRIPTOR.message_types_by_name["InferBatchStatistics"])
MemoryUsage = GetMessageClass(DESCRIPTOR.message_types_by_name["MemoryUsage"])
ModelStatistics = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelStatistics"])
ModelStatisticsResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelStatisticsResponse"])
ModelRepositoryParameter = GetMessageClass(DESCRIPTOR.message_types_by_name["ModelRepositoryParameter"])
RepositoryIndexRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryIndexRequest"])
RepositoryIndexResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryIndexResponse"])
RepositoryModelLoadRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryModelLoadRequest"])
RepositoryModelLoadResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryModelLoadResponse"])
RepositoryModelUnloadRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryModelUnloadRequest"])
RepositoryModelUnloadResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["RepositoryModelUnloadResponse"])
SystemSharedMemoryStatusRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryStatusRequest"])
SystemSharedMemoryStatusResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryStatusResponse"])
SystemSharedMemoryRegisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryRegisterRequest"])
SystemSharedMemoryRegisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryRegisterResponse"])
SystemSharedMemoryUnregisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryUnregisterRequest"])
SystemSharedMemoryUnregisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["SystemSharedMemoryUnregisterResponse"])
CudaSharedMemoryStatusRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryStatusRequest"])
CudaSharedMemoryStatusResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryStatusResponse"])
CudaSharedMemoryRegisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryRegisterRequest"])
CudaSharedMemoryRegisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryRegisterResponse"])
CudaSharedMemoryUnregisterRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryUnregisterRequest"])
CudaSharedMemoryUnregisterResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["CudaSharedMemoryUnregisterResponse"])
TraceSettingRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["TraceSettingRequest"])
TraceSettingResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["TraceSettingResponse"])
LogSettingsRequest = GetMessageClass(DESCRIPTOR.message_types_by_name["LogSettingsRequest"])
LogSettingsResponse = GetMessageClass(DESCRIPTOR.message_types_by_name["LogSettingsResponse"])
