from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Request(_message.Message):
    __slots__ = ("msg_id", "entity_id", "get_features_req", "get_hosted_tables_req", "table_make_port_req", "table_make_view_req", "table_schema_req", "table_size_req", "view_column_paths_req", "view_delete_req", "view_dimensions_req", "view_expression_schema_req", "view_get_config_req", "view_schema_req", "view_to_arrow_req", "server_system_info_req", "view_collapse_req", "view_expand_req", "view_get_min_max_req", "view_on_update_req", "view_remove_on_update_req", "view_set_depth_req", "view_to_columns_string_req", "view_to_csv_req", "view_to_rows_string_req", "make_table_req", "table_delete_req", "table_on_delete_req", "table_remove_delete_req", "table_remove_req", "table_replace_req", "table_update_req", "view_on_delete_req", "view_remove_delete_req", "view_to_ndjson_string_req", "remove_hosted_tables_update_req", "make_join_table_req", "view_on_remove_req", "view_remove_on_remove_req", "table_describe_req")
    MSG_ID_FIELD_NUMBER: _ClassVar[int]
    ENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    GET_FEATURES_REQ_FIELD_NUMBER: _ClassVar[int]
    GET_HOSTED_TABLES_REQ_FIELD_NUMBER: _ClassVar[int]
    TABLE_MAKE_PORT_REQ_FIELD_NUMBER: _ClassVar[int]
    TABLE_MAKE_VIEW_REQ_FIELD_NUMBER: _ClassVar[int]
    TABLE_SCHEMA_REQ_FIELD_NUMBER: _ClassVar[int]
    TABLE_SIZE_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_COLUMN_PATHS_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_DELETE_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_DIMENSIONS_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_EXPRESSION_SCHEMA_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_GET_CONFIG_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_SCHEMA_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_TO_ARROW_REQ_FIELD_NUMBER: _ClassVar[int]
    SERVER_SYSTEM_INFO_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_COLLAPSE_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_EXPAND_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_GET_MIN_MAX_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_ON_UPDATE_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_REMOVE_ON_UPDATE_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_SET_DEPTH_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_TO_COLUMNS_STRING_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_TO_CSV_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_TO_ROWS_STRING_REQ_FIELD_NUMBER: _ClassVar[int]
    MAKE_TABLE_REQ_FIELD_NUMBER: _ClassVar[int]
    TABLE_DELETE_REQ_FIELD_NUMBER: _ClassVar[int]
    TABLE_ON_DELETE_REQ_FIELD_NUMBER: _ClassVar[int]
    TABLE_REMOVE_DELETE_REQ_FIELD_NUMBER: _ClassVar[int]
    TABLE_REMOVE_REQ_FIELD_NUMBER: _ClassVar[int]
    TABLE_REPLACE_REQ_FIELD_NUMBER: _ClassVar[int]
    TABLE_UPDATE_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_ON_DELETE_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_REMOVE_DELETE_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_TO_NDJSON_STRING_REQ_FIELD_NUMBER: _ClassVar[int]
    REMOVE_HOSTED_TABLES_UPDATE_REQ_FIELD_NUMBER: _ClassVar[int]
    MAKE_JOIN_TABLE_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_ON_REMOVE_REQ_FIELD_NUMBER: _ClassVar[int]
    VIEW_REMOVE_ON_REMOVE_REQ_FIELD_NUMBER: _ClassVar[int]
    TABLE_DESCRIBE_REQ_FIELD_NUMBER: _ClassVar[int]
    msg_id: int
    entity_id: str
    get_features_req: _containers.RepeatedCompositeFieldContainer[Unread]
    get_hosted_tables_req: _containers.RepeatedCompositeFieldContainer[GetHostedTablesReq]
    table_make_port_req: _containers.RepeatedCompositeFieldContainer[Unread]
    table_make_view_req: _containers.RepeatedCompositeFieldContainer[TableMakeViewReq]
    table_schema_req: _containers.RepeatedCompositeFieldContainer[Unread]
    table_size_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_column_paths_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_delete_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_dimensions_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_expression_schema_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_get_config_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_schema_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_to_arrow_req: _containers.RepeatedCompositeFieldContainer[ViewDataReq]
    server_system_info_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_collapse_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_expand_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_get_min_max_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_on_update_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_remove_on_update_req: _containers.RepeatedCompositeFieldContainer[UnfollowReq]
    view_set_depth_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_to_columns_string_req: _containers.RepeatedCompositeFieldContainer[ViewDataReq]
    view_to_csv_req: _containers.RepeatedCompositeFieldContainer[ViewDataReq]
    view_to_rows_string_req: _containers.RepeatedCompositeFieldContainer[ViewDataReq]
    make_table_req: _containers.RepeatedCompositeFieldContainer[Unread]
    table_delete_req: _containers.RepeatedCompositeFieldContainer[Unread]
    table_on_delete_req: _containers.RepeatedCompositeFieldContainer[Unread]
    table_remove_delete_req: _containers.RepeatedCompositeFieldContainer[UnfollowReq]
    table_remove_req: _containers.RepeatedCompositeFieldContainer[Unread]
    table_replace_req: _containers.RepeatedCompositeFieldContainer[Unread]
    table_update_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_on_delete_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_remove_delete_req: _containers.RepeatedCompositeFieldContainer[UnfollowReq]
    view_to_ndjson_string_req: _containers.RepeatedCompositeFieldContainer[ViewDataReq]
    remove_hosted_tables_update_req: _containers.RepeatedCompositeFieldContainer[UnfollowReq]
    make_join_table_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_on_remove_req: _containers.RepeatedCompositeFieldContainer[Unread]
    view_remove_on_remove_req: _containers.RepeatedCompositeFieldContainer[UnfollowReq]
    table_describe_req: _containers.RepeatedCompositeFieldContainer[TableDescribeReq]
    def __init__(self, msg_id: _Optional[int] = ..., entity_id: _Optional[str] = ..., get_features_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., get_hosted_tables_req: _Optional[_Iterable[_Union[GetHostedTablesReq, _Mapping]]] = ..., table_make_port_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., table_make_view_req: _Optional[_Iterable[_Union[TableMakeViewReq, _Mapping]]] = ..., table_schema_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., table_size_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_column_paths_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_delete_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_dimensions_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_expression_schema_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_get_config_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_schema_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_to_arrow_req: _Optional[_Iterable[_Union[ViewDataReq, _Mapping]]] = ..., server_system_info_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_collapse_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_expand_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_get_min_max_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_on_update_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_remove_on_update_req: _Optional[_Iterable[_Union[UnfollowReq, _Mapping]]] = ..., view_set_depth_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_to_columns_string_req: _Optional[_Iterable[_Union[ViewDataReq, _Mapping]]] = ..., view_to_csv_req: _Optional[_Iterable[_Union[ViewDataReq, _Mapping]]] = ..., view_to_rows_string_req: _Optional[_Iterable[_Union[ViewDataReq, _Mapping]]] = ..., make_table_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., table_delete_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., table_on_delete_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., table_remove_delete_req: _Optional[_Iterable[_Union[UnfollowReq, _Mapping]]] = ..., table_remove_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., table_replace_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., table_update_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_on_delete_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_remove_delete_req: _Optional[_Iterable[_Union[UnfollowReq, _Mapping]]] = ..., view_to_ndjson_string_req: _Optional[_Iterable[_Union[ViewDataReq, _Mapping]]] = ..., remove_hosted_tables_update_req: _Optional[_Iterable[_Union[UnfollowReq, _Mapping]]] = ..., make_join_table_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_on_remove_req: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., view_remove_on_remove_req: _Optional[_Iterable[_Union[UnfollowReq, _Mapping]]] = ..., table_describe_req: _Optional[_Iterable[_Union[TableDescribeReq, _Mapping]]] = ...) -> None: ...

class Unread(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetHostedTablesReq(_message.Message):
    __slots__ = ("subscribe",)
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    subscribe: bool
    def __init__(self, subscribe: _Optional[bool] = ...) -> None: ...

class TableMakeViewReq(_message.Message):
    __slots__ = ("view_id", "config")
    VIEW_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    view_id: str
    config: _containers.RepeatedCompositeFieldContainer[ViewConfig]
    def __init__(self, view_id: _Optional[str] = ..., config: _Optional[_Iterable[_Union[ViewConfig, _Mapping]]] = ...) -> None: ...

class TableDescribeReq(_message.Message):
    __slots__ = ("config",)
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    config: _containers.RepeatedCompositeFieldContainer[ViewConfig]
    def __init__(self, config: _Optional[_Iterable[_Union[ViewConfig, _Mapping]]] = ...) -> None: ...

class UnfollowReq(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[_Iterable[int]] = ...) -> None: ...

class ViewDataReq(_message.Message):
    __slots__ = ("viewport",)
    VIEWPORT_FIELD_NUMBER: _ClassVar[int]
    viewport: _containers.RepeatedCompositeFieldContainer[ViewPort]
    def __init__(self, viewport: _Optional[_Iterable[_Union[ViewPort, _Mapping]]] = ...) -> None: ...

class ViewPort(_message.Message):
    __slots__ = ("start_row", "start_col", "end_row", "end_col")
    START_ROW_FIELD_NUMBER: _ClassVar[int]
    START_COL_FIELD_NUMBER: _ClassVar[int]
    END_ROW_FIELD_NUMBER: _ClassVar[int]
    END_COL_FIELD_NUMBER: _ClassVar[int]
    start_row: int
    start_col: int
    end_row: int
    end_col: int
    def __init__(self, start_row: _Optional[int] = ..., start_col: _Optional[int] = ..., end_row: _Optional[int] = ..., end_col: _Optional[int] = ...) -> None: ...

class ViewConfig(_message.Message):
    __slots__ = ("group_by", "split_by", "columns", "filter", "sort", "expressions", "aggregates", "filter_op", "group_by_depth", "group_rollup_mode", "windows", "split_rollup_mode")
    class Filter(_message.Message):
        __slots__ = ("value",)
        VALUE_FIELD_NUMBER: _ClassVar[int]
        value: _containers.RepeatedCompositeFieldContainer[Unread]
        def __init__(self, value: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ...) -> None: ...
    class ExpressionEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: _containers.RepeatedScalarFieldContainer[str]
        value: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, key: _Optional[_Iterable[str]] = ..., value: _Optional[_Iterable[str]] = ...) -> None: ...
    class AggregateEntry(_message.Message):
        __slots__ = ("value",)
        VALUE_FIELD_NUMBER: _ClassVar[int]
        value: _containers.RepeatedCompositeFieldContainer[ViewConfig.AggList]
        def __init__(self, value: _Optional[_Iterable[_Union[ViewConfig.AggList, _Mapping]]] = ...) -> None: ...
    class AggList(_message.Message):
        __slots__ = ("aggregations",)
        AGGREGATIONS_FIELD_NUMBER: _ClassVar[int]
        aggregations: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, aggregations: _Optional[_Iterable[str]] = ...) -> None: ...
    GROUP_BY_FIELD_NUMBER: _ClassVar[int]
    SPLIT_BY_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    SORT_FIELD_NUMBER: _ClassVar[int]
    EXPRESSIONS_FIELD_NUMBER: _ClassVar[int]
    AGGREGATES_FIELD_NUMBER: _ClassVar[int]
    FILTER_OP_FIELD_NUMBER: _ClassVar[int]
    GROUP_BY_DEPTH_FIELD_NUMBER: _ClassVar[int]
    GROUP_ROLLUP_MODE_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    SPLIT_ROLLUP_MODE_FIELD_NUMBER: _ClassVar[int]
    group_by: _containers.RepeatedScalarFieldContainer[str]
    split_by: _containers.RepeatedScalarFieldContainer[str]
    columns: _containers.RepeatedCompositeFieldContainer[ColumnsUpdate]
    filter: _containers.RepeatedCompositeFieldContainer[ViewConfig.Filter]
    sort: _containers.RepeatedCompositeFieldContainer[Unread]
    expressions: _containers.RepeatedCompositeFieldContainer[ViewConfig.ExpressionEntry]
    aggregates: _containers.RepeatedCompositeFieldContainer[ViewConfig.AggregateEntry]
    filter_op: int
    group_by_depth: int
    group_rollup_mode: int
    windows: _containers.RepeatedCompositeFieldContainer[Unread]
    split_rollup_mode: int
    def __init__(self, group_by: _Optional[_Iterable[str]] = ..., split_by: _Optional[_Iterable[str]] = ..., columns: _Optional[_Iterable[_Union[ColumnsUpdate, _Mapping]]] = ..., filter: _Optional[_Iterable[_Union[ViewConfig.Filter, _Mapping]]] = ..., sort: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., expressions: _Optional[_Iterable[_Union[ViewConfig.ExpressionEntry, _Mapping]]] = ..., aggregates: _Optional[_Iterable[_Union[ViewConfig.AggregateEntry, _Mapping]]] = ..., filter_op: _Optional[int] = ..., group_by_depth: _Optional[int] = ..., group_rollup_mode: _Optional[int] = ..., windows: _Optional[_Iterable[_Union[Unread, _Mapping]]] = ..., split_rollup_mode: _Optional[int] = ...) -> None: ...

class ColumnsUpdate(_message.Message):
    __slots__ = ("columns",)
    class Columns(_message.Message):
        __slots__ = ("columns",)
        COLUMNS_FIELD_NUMBER: _ClassVar[int]
        columns: _containers.RepeatedScalarFieldContainer[str]
        def __init__(self, columns: _Optional[_Iterable[str]] = ...) -> None: ...
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    columns: _containers.RepeatedCompositeFieldContainer[ColumnsUpdate.Columns]
    def __init__(self, columns: _Optional[_Iterable[_Union[ColumnsUpdate.Columns, _Mapping]]] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("msg_id", "entity_id", "table_make_port_resp", "view_dimensions_resp", "table_describe_resp", "server_error")
    MSG_ID_FIELD_NUMBER: _ClassVar[int]
    ENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    TABLE_MAKE_PORT_RESP_FIELD_NUMBER: _ClassVar[int]
    VIEW_DIMENSIONS_RESP_FIELD_NUMBER: _ClassVar[int]
    TABLE_DESCRIBE_RESP_FIELD_NUMBER: _ClassVar[int]
    SERVER_ERROR_FIELD_NUMBER: _ClassVar[int]
    msg_id: int
    entity_id: str
    table_make_port_resp: TableMakePortResp
    view_dimensions_resp: ViewDimensionsResp
    table_describe_resp: TableDescribeResp
    server_error: ServerError
    def __init__(self, msg_id: _Optional[int] = ..., entity_id: _Optional[str] = ..., table_make_port_resp: _Optional[_Union[TableMakePortResp, _Mapping]] = ..., view_dimensions_resp: _Optional[_Union[ViewDimensionsResp, _Mapping]] = ..., table_describe_resp: _Optional[_Union[TableDescribeResp, _Mapping]] = ..., server_error: _Optional[_Union[ServerError, _Mapping]] = ...) -> None: ...

class TableMakePortResp(_message.Message):
    __slots__ = ("port_id",)
    PORT_ID_FIELD_NUMBER: _ClassVar[int]
    port_id: int
    def __init__(self, port_id: _Optional[int] = ...) -> None: ...

class ViewDimensionsResp(_message.Message):
    __slots__ = ("num_view_rows", "num_view_columns")
    NUM_VIEW_ROWS_FIELD_NUMBER: _ClassVar[int]
    NUM_VIEW_COLUMNS_FIELD_NUMBER: _ClassVar[int]
    num_view_rows: int
    num_view_columns: int
    def __init__(self, num_view_rows: _Optional[int] = ..., num_view_columns: _Optional[int] = ...) -> None: ...

class TableDescribeResp(_message.Message):
    __slots__ = ("expression_errors",)
    class ExpressionErrorsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ExpressionError
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ExpressionError, _Mapping]] = ...) -> None: ...
    EXPRESSION_ERRORS_FIELD_NUMBER: _ClassVar[int]
    expression_errors: _containers.MessageMap[str, ExpressionError]
    def __init__(self, expression_errors: _Optional[_Mapping[str, ExpressionError]] = ...) -> None: ...

class ExpressionError(_message.Message):
    __slots__ = ("error_message", "line", "column")
    ERROR_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    COLUMN_FIELD_NUMBER: _ClassVar[int]
    error_message: str
    line: int
    column: int
    def __init__(self, error_message: _Optional[str] = ..., line: _Optional[int] = ..., column: _Optional[int] = ...) -> None: ...

class ServerError(_message.Message):
    __slots__ = ("message",)
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    message: str
    def __init__(self, message: _Optional[str] = ...) -> None: ...
